/* PostgreSQL's binary rows to Avro rows, and row messages of the log to changes: transcoder.py and pgoutput.py compiled.
 *
 * What is plain is done here; what is not goes the Python road, which is the reference (native/program.h).
 */
#include "connectors/postgres/native/program.h"

#ifndef SOURCE_DIGEST
#define SOURCE_DIGEST ""
#endif

#define CHANGE_FIELDS 9
#define ROW_AT 31 /* behind XLogData's 25 bytes, the message's type, oid and tuple kind */

typedef struct {
    PyTypeObject *change;
    PyObject *create, *update, *remove; /* ops */
    PyObject *table;
    PyObject *items;
    uint64_t lsn;
} Run;

/* Appends a Change; takes the references to key, before, after, unchanged and other_key. */
static int append_change(const Run *run, PyObject *op, int64_t order, PyObject *key,
                         PyObject *before, PyObject *after, PyObject *unchanged, PyObject *other)
{
    PyObject *fields[CHANGE_FIELDS] = {
        run->table, op, PyLong_FromUnsignedLongLong(run->lsn), PyLong_FromLongLong(order),
        key,        before, after, unchanged, other,
    };
    PyObject *change = run->change->tp_alloc(run->change, CHANGE_FIELDS);
    int place, done = -1;
    Py_INCREF(run->table);
    Py_INCREF(op);
    for (place = 4; place < CHANGE_FIELDS; place++)
        if (fields[place] == NULL) {
            Py_INCREF(Py_None);
            fields[place] = Py_None;
        }
    if (change == NULL || fields[2] == NULL || fields[3] == NULL) {
        for (place = 0; place < CHANGE_FIELDS; place++)
            Py_XDECREF(fields[place]);
        Py_XDECREF(change);
        return -1;
    }
    for (place = 0; place < CHANGE_FIELDS; place++)
        PyTuple_SET_ITEM(change, place, fields[place]);
    PyObject_GC_UnTrack(change); /* nothing that it holds leads back to it */
    done = PyList_Append(run->items, change);
    Py_DECREF(change);
    return done;
}

/* A key's bytes, or NULL for a table without one; takes the reference. */
static PyObject *key_or_none(PyObject *key)
{
    if (PyBytes_GET_SIZE(key) > 0)
        return key;
    Py_DECREF(key);
    return NULL;
}

static Outcome run_insert(const Run *run, const Program *program, PyObject *frame, PyObject *op,
                          int64_t order)
{
    Made made;
    Outcome outcome = transcode(program, STREAM, frame, ROW_AT, &made);
    if (outcome != DONE)
        return outcome;
    return append_change(run, op, order, key_or_none(made.key), NULL, made.row, made.unchanged,
                         NULL);
}

static Outcome old_image(const Program *program, PyObject *frame, Made *old)
{
    int kind = PyBytes_AS_STRING(frame)[ROW_AT - 1];
    if (kind != 'K' && kind != 'O')
        return DOUBTFUL;
    return transcode(program, kind == 'O' ? STREAM : OLD, frame, ROW_AT, old);
}

static Outcome run_delete(const Run *run, const Program *program, PyObject *frame, int64_t order)
{
    Made old;
    Outcome outcome = old_image(program, frame, &old);
    if (outcome != DONE)
        return outcome;
    Py_DECREF(old.unchanged);
    Py_INCREF(no_names);
    return append_change(run, run->remove, order, key_or_none(old.key), old.row, NULL, no_names,
                         NULL);
}

/* One change, or two at two numbers where the key is another. */
static Outcome run_update_with_old(const Run *run, const Program *program, PyObject *frame,
                                   int64_t order)
{
    Made old, new;
    Outcome outcome = old_image(program, frame, &old);
    int same;
    if (outcome != DONE)
        return outcome;
    outcome = transcode(program, STREAM, frame, old.end + 1, &new);
    if (outcome == DONE && PyTuple_GET_SIZE(new.unchanged) &&
        PyBytes_AS_STRING(frame)[ROW_AT - 1] == 'O') {
        made_clear(&new);
        outcome = DOUBTFUL; /* to be filled from the old image */
    }
    if (outcome != DONE) {
        made_clear(&old);
        return outcome;
    }
    same = PyBytes_GET_SIZE(old.key) == PyBytes_GET_SIZE(new.key) &&
           memcmp(PyBytes_AS_STRING(old.key), PyBytes_AS_STRING(new.key),
                  (size_t)PyBytes_GET_SIZE(old.key)) == 0;
    Py_CLEAR(old.unchanged);
    if (same) {
        Py_DECREF(old.key);
        return append_change(run, run->update, order, key_or_none(new.key), old.row, new.row,
                             new.unchanged, NULL);
    }
    if ((old.key = key_or_none(old.key)) == NULL || (new.key = key_or_none(new.key)) == NULL) {
        Py_XDECREF(old.key);
        Py_DECREF(old.row);
        Py_XDECREF(new.key);
        Py_DECREF(new.row);
        Py_DECREF(new.unchanged);
        return DOUBTFUL;
    }
    Py_INCREF(old.key); /* each stands in both */
    Py_INCREF(new.key);
    Py_INCREF(no_names);
    if (append_change(run, run->remove, order, old.key, old.row, NULL, no_names, new.key) < 0) {
        Py_DECREF(old.key);
        Py_DECREF(new.key);
        Py_DECREF(new.row);
        Py_DECREF(new.unchanged);
        return FAILED;
    }
    return append_change(run, run->create, order + 1, new.key, NULL, new.row, new.unchanged,
                         old.key);
}

static Outcome run_frame(Run *run, PyObject *frame, PyObject *programs, int64_t *order)
{
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(frame);
    PyObject *oid, *program;
    Outcome outcome = DOUBTFUL;
    int kind;
    if (PyBytes_GET_SIZE(frame) < ROW_AT || data[0] != 'w')
        return DOUBTFUL;
    kind = data[25];
    if (kind != 'I' && kind != 'U' && kind != 'D')
        return DOUBTFUL;
    if ((oid = PyLong_FromUnsignedLong(read_32(data + 26))) == NULL)
        return FAILED;
    program = PyDict_GetItemWithError(programs, oid);
    Py_DECREF(oid);
    if (program == NULL)
        return PyErr_Occurred() ? FAILED : DOUBTFUL;
    if (program == Py_None) { /* not selected, but numbered */
        *order += kind == 'U' ? 2 : 1;
        return DONE;
    }
    if (!Py_IS_TYPE(program, &ProgramType) || ((Program *)program)->table == NULL)
        return DOUBTFUL;
    Py_INCREF(program); /* a column's function might forget it */
    run->table = ((Program *)program)->table;
    run->lsn = read_64(data + 1);
    if (kind == 'I')
        outcome = run_insert(run, (Program *)program, frame, run->create, *order + 1);
    else if (kind == 'D')
        outcome = run_delete(run, (Program *)program, frame, *order + 1);
    else if (data[30] == 'N')
        outcome = run_insert(run, (Program *)program, frame, run->update, *order + 1);
    else
        outcome = run_update_with_old(run, (Program *)program, frame, *order + 1);
    Py_DECREF(program);
    if (outcome == DONE)
        *order += kind == 'U' ? 2 : 1;
    return outcome;
}

PyDoc_STRVAR(row_messages_doc,
"row_messages(frames, at, programs, order, change, items) -> (at, order)\n\n"
"Append the changes of the row messages that stand in ``frames`` from ``at`` on, up to the first frame that is none\n"
"or that Python has to look at: its place is returned, with the number of the last change. ``programs`` has each\n"
"relation's Program by its oid, None for one that is not selected.");

static PyObject *row_messages(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    static PyObject *ops[3];
    PyObject *frames, *programs;
    Py_ssize_t at;
    long long order;
    Run run;
    (void)module;
    if (count != 6 || !PyList_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[2]) ||
        !PyType_Check(arguments[4]) ||
        !PyType_IsSubtype((PyTypeObject *)arguments[4], &PyTuple_Type) ||
        !PyList_CheckExact(arguments[5])) {
        PyErr_SetString(PyExc_TypeError, "row_messages(list, int, dict, int, type, list)");
        return NULL;
    }
    if (ops[2] == NULL && ((ops[0] = PyUnicode_InternFromString("c")) == NULL ||
                           (ops[1] = PyUnicode_InternFromString("u")) == NULL ||
                           (ops[2] = PyUnicode_InternFromString("d")) == NULL))
        return NULL;
    frames = arguments[0];
    programs = arguments[2];
    run.change = (PyTypeObject *)arguments[4];
    run.create = ops[0];
    run.update = ops[1];
    run.remove = ops[2];
    run.items = arguments[5];
    at = PyLong_AsSsize_t(arguments[1]);
    order = PyLong_AsLongLong(arguments[3]);
    if (PyErr_Occurred())
        return NULL;
    if (at < 0) {
        PyErr_SetString(PyExc_ValueError, "a place before the first");
        return NULL;
    }
    for (; at < PyList_GET_SIZE(frames); at++) {
        PyObject *frame = PyList_GET_ITEM(frames, at);
        int64_t number = order;
        Outcome outcome;
        if (!PyBytes_CheckExact(frame))
            break;
        Py_INCREF(frame);
        outcome = run_frame(&run, frame, programs, &number);
        Py_DECREF(frame);
        if (outcome == FAILED)
            return NULL;
        if (outcome != DONE)
            break;
        order = number;
    }
    return Py_BuildValue("(nL)", at, order);
}

static PyMethodDef METHODS[] = {
    {"row_messages", METHOD(row_messages), METH_FASTCALL, row_messages_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "connectors.postgres._transcoder",
    .m_doc = "PostgreSQL's binary rows to Avro rows, compiled.",
    .m_size = -1,
    .m_methods = METHODS,
};

PyMODINIT_FUNC PyInit__transcoder(void);

PyMODINIT_FUNC PyInit__transcoder(void)
{
    PyObject *module;
    if (PyType_Ready(&ProgramType) < 0 || (no_names = PyTuple_New(0)) == NULL)
        return NULL;
    if ((module = PyModule_Create(&MODULE)) == NULL)
        return NULL;
    if (PyModule_AddStringConstant(module, "SOURCE_DIGEST", SOURCE_DIGEST) < 0 ||
        PyModule_AddObjectRef(module, "Program", (PyObject *)&ProgramType) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
