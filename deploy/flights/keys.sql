-- Run after the rows are there: one pass over each table instead of a look-up for every row.

-- Parents that the data names but does not hold: their key is all that is known of them.
INSERT INTO planes (tailnum)
SELECT DISTINCT tailnum FROM flights WHERE tailnum IS NOT NULL
EXCEPT SELECT tailnum FROM planes;

INSERT INTO airports (faa)
SELECT dest FROM flights UNION SELECT origin FROM flights UNION SELECT origin FROM weather
EXCEPT SELECT faa FROM airports;

ALTER TABLE weather
    ADD FOREIGN KEY (origin) REFERENCES airports,
    ADD UNIQUE (origin, time_hour);

ALTER TABLE flights
    ADD FOREIGN KEY (carrier) REFERENCES airlines,
    ADD FOREIGN KEY (tailnum) REFERENCES planes,
    ADD FOREIGN KEY (origin) REFERENCES airports,
    ADD FOREIGN KEY (dest) REFERENCES airports;

CREATE INDEX ON flights (tailnum);

ANALYZE;
