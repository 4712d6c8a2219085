/* Envelopes put around rows: the compiled form of encoder.py's loop over a transaction's changes.
 *
 * An envelope is a concatenation of parts that are the same for a transaction or a table, made in Python once, and of
 * what differs from event to event, written here. Anything but a change of plain bytes and numbers is a TypeError: the
 * encoder is given changes, and nothing else.
 */
#include "cdc/avro_bytes.h"

#ifndef SOURCE_DIGEST
#define SOURCE_DIGEST ""
#endif

enum { TABLE, OP, LSN, ORDER, KEY, BEFORE, AFTER, UNCHANGED, OTHER_KEY, CHANGE_FIELDS };
enum { TOPIC, PARTITION, FRAMED_KEY, VALUE, HEADERS, OFFSET, RECORD_FIELDS };

/* What all events of one table in one transaction share. */
typedef struct {
    PyObject *record, *topic, *partition, *headers;
    PyObject *key_frame, *only_before, *only_after, *neither;
    PyObject *head, *sequence, *between, *tail, *written_at;
    int tombstones;
} Shared;

static PyObject *no_headers, *no_offset;

static inline int put_part(Bytes *to, PyObject *bytes)
{
    return put_bytes(to, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
}

/* The decimal digits of an LSN, from the end of ``digits``; how many there are. */
static int decimal(uint64_t number, char digits[20])
{
    int count = 0;
    do {
        digits[19 - count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    return count;
}

/* Rows, or neither, in front of ``source``. */
static int put_rows(Bytes *to, const Shared *shared, PyObject *before, PyObject *after)
{
    if (before == Py_None && after == Py_None)
        return put_part(to, shared->neither);
    if (before == Py_None)
        return put_part(to, shared->only_after) < 0 ? -1 : put_part(to, after);
    if (put_part(to, shared->only_before) < 0 || put_part(to, before) < 0)
        return -1;
    if (after == Py_None)
        return put_byte(to, AVRO_NULL);
    return put_byte(to, AVRO_PRESENT) < 0 ? -1 : put_part(to, after);
}

static PyObject *value_of(const Shared *shared, PyObject *const *change, long long sent)
{
    PyObject *value = NULL;
    unsigned long long lsn = PyLong_AsUnsignedLongLong(change[LSN]);
    long long order = PyLong_AsLongLong(change[ORDER]);
    Py_ssize_t size;
    const char *op = PyUnicode_AsUTF8AndSize(change[OP], &size);
    char digits[20];
    int count;
    Bytes bytes;
    if (PyErr_Occurred())
        return NULL;
    if (size != 1 || lsn > INT64_MAX) {
        PyErr_SetString(PyExc_ValueError, "an op of other than one letter, or an LSN past 63 bits");
        return NULL;
    }
    bytes_init(&bytes);
    count = decimal(lsn, digits);
    if (put_rows(&bytes, shared, change[BEFORE], change[AFTER]) == 0 &&
        put_part(&bytes, shared->head) == 0 &&
        put_long(&bytes, PyBytes_GET_SIZE(shared->sequence) + count + 2) == 0 &&
        put_part(&bytes, shared->sequence) == 0 &&
        put_bytes(&bytes, digits + 20 - count, count) == 0 &&
        put_part(&bytes, shared->between) == 0 && put_long(&bytes, (int64_t)lsn) == 0 &&
        put_part(&bytes, shared->tail) == 0 && put_long(&bytes, order) == 0 &&
        put_long(&bytes, sent) == 0 && put_byte(&bytes, 1 << 1) == 0 &&
        put_byte(&bytes, (unsigned char)op[0]) == 0 && put_part(&bytes, shared->written_at) == 0)
        value = PyBytes_FromStringAndSize((char *)bytes.data, bytes.size);
    bytes_free(&bytes);
    return value;
}

static PyObject *framed_key(const Shared *shared, PyObject *key)
{
    Py_ssize_t size = PyBytes_GET_SIZE(shared->key_frame);
    PyObject *framed = PyBytes_FromStringAndSize(NULL, size + PyBytes_GET_SIZE(key));
    if (framed != NULL) {
        memcpy(PyBytes_AS_STRING(framed), PyBytes_AS_STRING(shared->key_frame), (size_t)size);
        memcpy(PyBytes_AS_STRING(framed) + size, PyBytes_AS_STRING(key),
               (size_t)PyBytes_GET_SIZE(key));
    }
    return framed;
}

static int is_bytes_or_none(PyObject *object)
{
    return object == Py_None || PyBytes_CheckExact(object);
}

static PyObject *headers_of(const Shared *shared, PyObject *const *change)
{
    PyObject *arguments[6] = {change[OP],        change[BEFORE],    change[AFTER],
                              change[UNCHANGED], change[OTHER_KEY], shared->key_frame};
    /* A row that is more than bytes is an ExactRow. */
    if (PyTuple_GET_SIZE(change[UNCHANGED]) == 0 && change[OTHER_KEY] == Py_None &&
        is_bytes_or_none(change[BEFORE]) && is_bytes_or_none(change[AFTER])) {
        Py_INCREF(no_headers);
        return no_headers;
    }
    return PyObject_Vectorcall(shared->headers, arguments, 6, NULL);
}

static int append_record(const Shared *shared, PyObject *records, PyObject *partition,
                         PyObject *key, PyObject *value, PyObject *headers)
{
    PyTypeObject *type = (PyTypeObject *)shared->record;
    PyObject *fields[RECORD_FIELDS] = {shared->topic, partition, key, value, headers, no_offset};
    PyObject *record = type->tp_alloc(type, RECORD_FIELDS);
    int place, done;
    if (record == NULL)
        return -1;
    for (place = 0; place < RECORD_FIELDS; place++) {
        Py_INCREF(fields[place]);
        PyTuple_SET_ITEM(record, place, fields[place]);
    }
    PyObject_GC_UnTrack(record); /* nothing that it holds leads back to it */
    done = PyList_Append(records, record);
    Py_DECREF(record);
    return done;
}

static int is_row_or_none(PyObject *object)
{
    return object == Py_None || PyBytes_Check(object);
}

static int is_plain(PyObject *const *change)
{
    return is_bytes_or_none(change[KEY]) && is_row_or_none(change[BEFORE]) &&
           is_row_or_none(change[AFTER]) && is_bytes_or_none(change[OTHER_KEY]) &&
           PyTuple_Check(change[UNCHANGED]) && PyUnicode_Check(change[OP]);
}

/* The records of one change, appended. */
static int encode(const Shared *shared, PyObject *records, PyObject *const *change, long long sent)
{
    PyObject *key, *value = NULL, *partition = NULL, *headers = NULL;
    int done = -1;
    if (!is_plain(change)) {
        PyErr_SetString(PyExc_TypeError, "a change of other than bytes");
        return -1;
    }
    if (change[KEY] == Py_None) {
        Py_INCREF(Py_None);
        key = Py_None;
    } else
        key = framed_key(shared, change[KEY]);
    if (key != NULL && (value = value_of(shared, change, sent)) != NULL &&
        (headers = headers_of(shared, change)) != NULL) {
        PyObject *arguments[2] = {shared->topic, key};
        partition = PyObject_Vectorcall(shared->partition, arguments, 2, NULL);
    }
    if (partition != NULL)
        done = append_record(shared, records, partition, key, value, headers);
    if (done == 0 && change[AFTER] == Py_None && shared->tombstones && key != Py_None)
        done = append_record(shared, records, partition, key, Py_None, headers);
    Py_XDECREF(key);
    Py_XDECREF(value);
    Py_XDECREF(headers);
    Py_XDECREF(partition);
    return done;
}

PyDoc_STRVAR(envelopes_doc,
"envelopes(changes, at, records, shared, sent) -> (at, sent)\n\n"
"Append the records of the changes from ``at`` on that are of the same table as the first of them; where they end,\n"
"and the count of events that the table has in its transaction then. ``shared`` is a tuple: see encoder.py.");

static PyObject *envelopes(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    PyObject *changes, *records, *table = NULL;
    Py_ssize_t at;
    long long sent;
    Shared shared;
    (void)module;
    if (count != 5 || !PyList_CheckExact(arguments[0]) || !PyList_CheckExact(arguments[2]) ||
        !PyTuple_Check(arguments[3])) {
        PyErr_SetString(PyExc_TypeError, "envelopes(list, int, list, tuple, int)");
        return NULL;
    }
    changes = arguments[0];
    records = arguments[2];
    at = PyLong_AsSsize_t(arguments[1]);
    sent = PyLong_AsLongLong(arguments[4]);
    if (PyErr_Occurred())
        return NULL;
    if (!PyArg_ParseTuple(arguments[3], "O!UOOSSSSSSSSSp", &PyType_Type, &shared.record,
                          &shared.topic, &shared.partition, &shared.headers, &shared.key_frame,
                          &shared.only_before, &shared.only_after, &shared.neither, &shared.head,
                          &shared.sequence, &shared.between, &shared.tail, &shared.written_at,
                          &shared.tombstones))
        return NULL;
    if (at < 0 || !PyType_IsSubtype((PyTypeObject *)shared.record, &PyTuple_Type)) {
        PyErr_SetString(PyExc_ValueError, "a place before the first, or records that are no tuples");
        return NULL;
    }
    for (; at < PyList_GET_SIZE(changes); at++) {
        PyObject *change = PyList_GET_ITEM(changes, at), *fields[CHANGE_FIELDS];
        int place, done;
        if (!PyTuple_Check(change) || PyTuple_GET_SIZE(change) != CHANGE_FIELDS) {
            PyErr_SetString(PyExc_TypeError, "a change has nine fields");
            return NULL;
        }
        for (place = 0; place < CHANGE_FIELDS; place++)
            fields[place] = PyTuple_GET_ITEM(change, place);
        if (table == NULL)
            table = fields[TABLE];
        else if (table != fields[TABLE])
            break;
        Py_INCREF(change); /* the list might lose it while Python code runs */
        done = encode(&shared, records, fields, sent + 1);
        Py_DECREF(change);
        if (done < 0)
            return NULL;
        sent++;
    }
    return Py_BuildValue("(nL)", at, sent);
}

static PyMethodDef METHODS[] = {
    {"envelopes", (PyCFunction)(void (*)(void))envelopes, METH_FASTCALL, envelopes_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cdc.avro._envelope",
    .m_doc = "Envelopes put around rows, compiled.",
    .m_size = -1,
    .m_methods = METHODS,
};

PyMODINIT_FUNC PyInit__envelope(void);

PyMODINIT_FUNC PyInit__envelope(void)
{
    PyObject *module;
    if ((no_headers = PyTuple_New(0)) == NULL || (no_offset = PyLong_FromLong(-1)) == NULL)
        return NULL;
    if ((module = PyModule_Create(&MODULE)) == NULL)
        return NULL;
    if (PyModule_AddStringConstant(module, "SOURCE_DIGEST", SOURCE_DIGEST) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
