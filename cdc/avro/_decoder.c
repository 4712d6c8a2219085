/* Records to events: envelope_reader.py and EventDecoder.data compiled, for the records that our own capture writes.
 *
 * A record with anything doubtful in it (headers, a schema not met yet, another writer, torn bytes) is given to the
 * Python road, which is the reference: so nothing is returned here that Python would not return.
 */
#include "cdc/avro_bytes.h"
#include "cdc/avro_reading.h"

#ifndef SOURCE_DIGEST
#define SOURCE_DIGEST ""
#endif

#define FRAME_SIZE 5
#define RECORD_FIELDS 6
#define DELIVERED_FIELDS 14
#define READER_FIELDS 4
#define DEEPEST 32
#define LONGEST_ID 44 /* two 64-bit numbers and a colon */

/* What to do at a place of the schema; numbered as in envelope_steps.py. */
typedef enum {
    STEP_VARINT,
    STEP_BOOLEAN,
    STEP_SIZED,
    STEP_FIXED,  /* size */
    STEP_UNION,  /* count, the size of each branch's steps, the steps */
    STEP_BLOCKS, /* size of an item's steps, the steps */
    STEP_TAG,    /* of a union that has null last: turned round in the row */
    STEP_ROW,    /* begins */
    STEP_BEFORE, /* the row ends, and is this one */
    STEP_AFTER,
    STEP_OP,
    STEP_XID,
    STEP_GENERATION,
    STEP_TRANSACTION,
    STEP_ORDER,
    STEP_COUNT
} Step;

typedef struct {
    PyObject_HEAD
    int32_t *key, *value, *key_end, *value_end; /* steps; no key: NULL */
    Py_ssize_t tags;                            /* most that one row has */
    /* The origin of the event before, which is mostly the next one's too. */
    unsigned char id[LONGEST_ID];
    size_t id_size;
    int64_t generation;
    PyObject *generation_number, *lsn_number, *xid_number;
} Program;

/* What an envelope says. */
typedef struct {
    const unsigned char *row, *before, *after, *before_end, *after_end, *id;
    size_t id_size;
    int64_t generation, order;
    const unsigned char **tags;
    Py_ssize_t before_tags, after_tags, room, count;
    int op;
} Found;

/* 0, or -1: doubtful. */
static int walk(const int32_t *step, const int32_t *end, Reading *from, Found *found, int depth)
{
    const unsigned char *bytes;
    size_t size;
    uint64_t raw;
    int64_t count;
    if (depth > DEEPEST)
        return -1;
    while (step < end) {
        switch ((Step)*step++) {
        case STEP_VARINT:
        case STEP_XID: /* the transaction's id says it too */
            if (read_raw(from, &raw) < 0)
                return -1;
            break;
        case STEP_BOOLEAN:
            if (from->at == from->end || *from->at > 1)
                return -1;
            from->at++;
            break;
        case STEP_SIZED:
            if (read_sized(from, &bytes, &size) < 0)
                return -1;
            break;
        case STEP_FIXED:
            if (read_skip(from, (uint64_t)*step++) < 0)
                return -1;
            break;
        case STEP_UNION: {
            int32_t branches = *step++, branch, place;
            const int32_t *sizes = step;
            step += branches;
            if (from->at == from->end || *from->at & 1 || *from->at / 2 >= branches)
                return -1;
            branch = *from->at++ / 2;
            for (place = 0; place < branches; place++) {
                if (place == branch &&
                    walk(step, step + sizes[place], from, found, depth + 1) < 0)
                    return -1;
                step += sizes[place];
            }
            break;
        }
        case STEP_BLOCKS: {
            int32_t item = *step++;
            for (;;) {
                if (read_long(from, &count) < 0)
                    return -1;
                if (count == 0)
                    break;
                if (count < 0) { /* the block says its size in bytes, for readers that skip it */
                    if (count == INT64_MIN || read_raw(from, &raw) < 0)
                        return -1;
                    count = -count;
                }
                if (count > from->end - from->at)
                    return -1;
                for (; count > 0; count--)
                    if (walk(step, step + item, from, found, depth + 1) < 0)
                        return -1;
            }
            step += item;
            break;
        }
        case STEP_TAG:
            if (found->count == found->room)
                return -1;
            found->tags[found->count++] = from->at;
            break;
        case STEP_ROW:
            found->row = from->at;
            break;
        case STEP_BEFORE:
            found->before = found->row;
            found->before_end = from->at;
            found->before_tags = found->count;
            break;
        case STEP_AFTER:
            found->after = found->row;
            found->after_end = from->at;
            found->after_tags = found->count;
            break;
        case STEP_OP:
            if (from->end - from->at < 2 || from->at[0] != 2)
                return -1;
            found->op = from->at[1];
            from->at += 2;
            break;
        case STEP_GENERATION:
            if (read_long(from, &found->generation) < 0)
                return -1;
            break;
        case STEP_TRANSACTION:
            if (read_sized(from, &found->id, &found->id_size) < 0)
                return -1;
            break;
        case STEP_ORDER:
            if (read_long(from, &found->order) < 0 || found->order < 0)
                return -1;
            break;
        case STEP_COUNT:
            return -1;
        }
    }
    return 0;
}

/* ``<xid>:<commit_lsn>`` in decimal digits that fit; 0 or -1. */
static int parse_id(const unsigned char *at, size_t size, int64_t *xid, int64_t *lsn)
{
    const unsigned char *end = at + size;
    int64_t *number = xid;
    int digits = 0, numbers = 1;
    *xid = *lsn = 0;
    for (; at < end; at++) {
        if (*at == ':' && numbers == 1 && digits > 0) {
            number = lsn;
            numbers = 2;
            digits = 0;
        } else if (*at >= '0' && *at <= '9' && digits < 18) {
            *number = *number * 10 + (*at - '0');
            digits++;
        } else
            return -1;
    }
    return numbers == 2 && digits > 0 ? 0 : -1;
}

/* Make the origin's numbers anew where they are others than the event before had. 1: done, 0: doubtful, -1: error. */
static int know_origin(Program *program, const Found *found)
{
    int64_t xid, lsn;
    PyObject *generation, *xid_number, *lsn_number;
    if (found->generation <= 0 || found->id == NULL || found->id_size > LONGEST_ID)
        return 0;
    if (program->generation == found->generation && program->id_size == found->id_size &&
        memcmp(program->id, found->id, found->id_size) == 0)
        return 1;
    if (parse_id(found->id, found->id_size, &xid, &lsn) < 0)
        return 0;
    generation = PyLong_FromLongLong(found->generation);
    xid_number = PyLong_FromLongLong(xid);
    lsn_number = PyLong_FromLongLong(lsn);
    if (generation == NULL || xid_number == NULL || lsn_number == NULL) {
        Py_XDECREF(generation);
        Py_XDECREF(xid_number);
        Py_XDECREF(lsn_number);
        return -1;
    }
    Py_XSETREF(program->generation_number, generation);
    Py_XSETREF(program->xid_number, xid_number);
    Py_XSETREF(program->lsn_number, lsn_number);
    program->generation = found->generation;
    program->id_size = found->id_size;
    memcpy(program->id, found->id, found->id_size);
    return 1;
}

/* A row with its unions that have null last turned round; None where there is none. */
static PyObject *row_of(const unsigned char *begin, const unsigned char *end,
                        const unsigned char **tags, Py_ssize_t count)
{
    PyObject *row;
    if (begin == NULL)
        Py_RETURN_NONE;
    if ((row = PyBytes_FromStringAndSize((const char *)begin, end - begin)) == NULL)
        return NULL;
    for (; count > 0; count--, tags++)
        PyBytes_AS_STRING(row)[*tags - begin] ^= 2;
    return row;
}

typedef struct {
    PyTypeObject *delivered, *position;
    PyObject *readers, *collections, *python;
    PyObject *ops[256];
    PyObject *nothing; /* the empty tuple */
    /* Of the record before. */
    PyObject *topic, *collection, *reader;
    unsigned char frames[2 * FRAME_SIZE];
    size_t frames_size;
} Batch;

/* A tuple's subtype from references that it takes, also when it fails. */
static PyObject *named_tuple(PyTypeObject *type, PyObject **fields, Py_ssize_t count)
{
    PyObject *made = type->tp_alloc(type, count);
    Py_ssize_t place;
    int failed = made == NULL;
    for (place = 0; place < count; place++)
        failed |= fields[place] == NULL;
    for (place = 0; place < count; place++) {
        if (failed)
            Py_XDECREF(fields[place]);
        else
            PyTuple_SET_ITEM(made, place, fields[place]);
    }
    if (failed)
        Py_CLEAR(made);
    else
        PyObject_GC_UnTrack(made); /* nothing that it holds leads back to it */
    return made;
}

static PyObject *new_ref(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

/* The event of an envelope. NULL with an error; NULL without one: doubtful. */
static PyObject *event_of(const Batch *batch, Program *program, PyObject *table, PyObject *record,
                          const Found *found)
{
    PyObject *key = PyTuple_GET_ITEM(record, 2), *value = PyTuple_GET_ITEM(record, 3);
    Py_ssize_t size = PyBytes_GET_SIZE(value);
    PyObject *position[3], *fields[DELIVERED_FIELDS];
    int known;
    if (found->op > 255 || batch->ops[found->op] == NULL)
        return NULL;
    if ((known = know_origin(program, found)) <= 0)
        return NULL;
    position[0] = new_ref(program->generation_number);
    position[1] = new_ref(program->lsn_number);
    position[2] = PyLong_FromLongLong(found->order);
    fields[0] = new_ref(batch->collection);
    fields[1] = new_ref(table);
    fields[2] = new_ref(batch->ops[found->op]);
    fields[3] = named_tuple(batch->position, position, 3);
    fields[4] = new_ref(program->xid_number);
    fields[5] = new_ref(Py_None);
    if (key != Py_None) {
        size += PyBytes_GET_SIZE(key);
        Py_DECREF(fields[5]);
        fields[5] = PyBytes_FromStringAndSize(PyBytes_AS_STRING(key) + FRAME_SIZE,
                                              PyBytes_GET_SIZE(key) - FRAME_SIZE);
    }
    /* Tags are noted in the order of the envelope, which may have after first. */
    if (found->after == NULL || found->before == NULL || found->before < found->after) {
        fields[6] = row_of(found->before, found->before_end, found->tags,
                           found->before == NULL ? 0 : found->before_tags);
        fields[7] = row_of(found->after, found->after_end,
                           found->tags + (found->before == NULL ? 0 : found->before_tags),
                           found->after_tags - (found->before == NULL ? 0 : found->before_tags));
    } else {
        fields[6] = row_of(found->before, found->before_end, found->tags + found->after_tags,
                           found->before_tags - found->after_tags);
        fields[7] = row_of(found->after, found->after_end, found->tags, found->after_tags);
    }
    fields[8] = new_ref(batch->nothing);
    fields[9] = new_ref(Py_None);
    fields[10] = new_ref(PyTuple_GET_ITEM(record, 0));
    fields[11] = new_ref(PyTuple_GET_ITEM(record, 1));
    fields[12] = new_ref(PyTuple_GET_ITEM(record, 5));
    fields[13] = PyLong_FromSsize_t(size);
    return named_tuple(batch->delivered, fields, DELIVERED_FIELDS);
}

/* Find the reader of the record's schemas, and the topic's collection. 1: known, 0: doubtful, -1: error. */
static int know_schemas(Batch *batch, PyObject *topic, PyObject *key, PyObject *value)
{
    unsigned char frames[2 * FRAME_SIZE];
    size_t size = FRAME_SIZE;
    PyObject *name, *found;
    if (topic != batch->topic) {
        found = PyDict_GetItemWithError(batch->collections, topic);
        if (found == NULL)
            return PyErr_Occurred() ? -1 : 0;
        Py_XSETREF(batch->topic, new_ref(topic));
        Py_XSETREF(batch->collection, new_ref(found));
    }
    memcpy(frames, PyBytes_AS_STRING(value), FRAME_SIZE);
    if (key != Py_None) {
        memcpy(frames + FRAME_SIZE, PyBytes_AS_STRING(key), FRAME_SIZE);
        size = 2 * FRAME_SIZE;
    }
    if (batch->reader != NULL && size == batch->frames_size &&
        memcmp(frames, batch->frames, size) == 0)
        return 1;
    if ((name = PyBytes_FromStringAndSize((char *)frames, (Py_ssize_t)size)) == NULL)
        return -1;
    found = PyDict_GetItemWithError(batch->readers, name);
    Py_DECREF(name);
    if (found == NULL)
        return PyErr_Occurred() ? -1 : 0;
    Py_XSETREF(batch->reader, new_ref(found));
    memcpy(batch->frames, frames, size);
    batch->frames_size = size;
    return 1;
}

static PyTypeObject ProgramType;

#define FEW_TAGS 64

/* A record's event, None for a tombstone. NULL with an error; NULL without one: doubtful. */
static PyObject *deliver_one(Batch *batch, PyObject *record)
{
    PyObject *key, *value, *headers, *event = NULL;
    const unsigned char *few_tags[2 * FEW_TAGS];
    Program *program;
    Reading from;
    Found found;
    if (!PyTuple_Check(record) || PyTuple_GET_SIZE(record) != RECORD_FIELDS)
        return NULL;
    key = PyTuple_GET_ITEM(record, 2);
    value = PyTuple_GET_ITEM(record, 3);
    headers = PyTuple_GET_ITEM(record, 4);
    if (value == Py_None)
        return new_ref(Py_None);
    if (!PyTuple_CheckExact(headers) || PyTuple_GET_SIZE(headers) != 0 ||
        !PyBytes_CheckExact(value) || PyBytes_GET_SIZE(value) < FRAME_SIZE ||
        (key != Py_None && (!PyBytes_CheckExact(key) || PyBytes_GET_SIZE(key) < FRAME_SIZE)) ||
        know_schemas(batch, PyTuple_GET_ITEM(record, 0), key, value) <= 0)
        return NULL;
    if (!PyTuple_Check(batch->reader) || PyTuple_GET_SIZE(batch->reader) != READER_FIELDS)
        return NULL;
    program = (Program *)PyTuple_GET_ITEM(batch->reader, 3);
    if (!Py_IS_TYPE(program, &ProgramType) || (program->key == NULL) != (key == Py_None))
        return NULL;
    memset(&found, 0, sizeof found);
    found.tags = few_tags;
    found.room = 2 * program->tags;
    if (found.room > 2 * FEW_TAGS) {
        found.tags = PyMem_Calloc((size_t)found.room, sizeof *found.tags);
        if (found.tags == NULL)
            return PyErr_NoMemory();
    }
    if (key != Py_None) {
        from.at = (const unsigned char *)PyBytes_AS_STRING(key) + FRAME_SIZE;
        from.end = (const unsigned char *)PyBytes_AS_STRING(key) + PyBytes_GET_SIZE(key);
        if (walk(program->key, program->key_end, &from, &found, 0) < 0 || from.at != from.end)
            goto out;
    }
    from.at = (const unsigned char *)PyBytes_AS_STRING(value) + FRAME_SIZE;
    from.end = (const unsigned char *)PyBytes_AS_STRING(value) + PyBytes_GET_SIZE(value);
    if (walk(program->value, program->value_end, &from, &found, 0) == 0 && from.at == from.end)
        event = event_of(batch, program, PyTuple_GET_ITEM(batch->reader, 1), record, &found);
out:
    if (found.tags != few_tags)
        PyMem_Free(found.tags);
    return event;
}

/* What Python makes of the record. */
static PyObject *by_python(Batch *batch, PyObject *record)
{
    PyObject *one = PyList_New(1), *found, *event = NULL;
    if (one == NULL)
        return NULL;
    PyList_SET_ITEM(one, 0, new_ref(record));
    found = PyObject_CallOneArg(batch->python, one);
    Py_DECREF(one);
    if (found != NULL && PyList_CheckExact(found) && PyList_GET_SIZE(found) == 1)
        event = new_ref(PyList_GET_ITEM(found, 0));
    else if (found != NULL)
        PyErr_SetString(PyExc_TypeError, "one record gives a list of one");
    Py_XDECREF(found);
    Py_CLEAR(batch->reader); /* schemas may have been met, and readers replaced */
    return event;
}

PyDoc_STRVAR(deliver_doc,
"deliver(records, readers, collections, delivered, position, python) -> list\n\n"
"The event of each record. ``readers`` has, by the frames of value and key, a tuple whose second item is the table and\n"
"whose fourth is the Program, or None; ``collections`` those of topics; ``python`` is called with a list of one record\n"
"for each that is not plain, and gives a list of one.");

static PyObject *deliver(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    static PyObject *ops[256];
    const char *op;
    PyObject *records, *events;
    Py_ssize_t place;
    Batch batch;
    (void)module;
    if (count != 6 || !PyDict_CheckExact(arguments[1]) || !PyDict_CheckExact(arguments[2]) ||
        !PyType_Check(arguments[3]) || !PyType_Check(arguments[4]) ||
        !PyType_IsSubtype((PyTypeObject *)arguments[3], &PyTuple_Type) ||
        !PyType_IsSubtype((PyTypeObject *)arguments[4], &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "deliver(sequence, dict, dict, type, type, callable)");
        return NULL;
    }
    for (op = "rcudt"; *op; op++)
        if (ops[(int)*op] == NULL &&
            (ops[(int)*op] = PyUnicode_FromStringAndSize(op, 1)) == NULL)
            return NULL;
    memset(&batch, 0, sizeof batch);
    memcpy(batch.ops, ops, sizeof ops);
    batch.readers = arguments[1];
    batch.collections = arguments[2];
    batch.delivered = (PyTypeObject *)arguments[3];
    batch.position = (PyTypeObject *)arguments[4];
    batch.python = arguments[5];
    if ((batch.nothing = PyTuple_New(0)) == NULL)
        return NULL;
    records = PySequence_Fast(arguments[0], "records are a sequence");
    events = records == NULL ? NULL : PyList_New(0);
    for (place = 0; events != NULL && place < PySequence_Fast_GET_SIZE(records); place++) {
        PyObject *record = new_ref(PySequence_Fast_GET_ITEM(records, place));
        PyObject *event = deliver_one(&batch, record);
        if (event == NULL && !PyErr_Occurred())
            event = by_python(&batch, record);
        Py_DECREF(record);
        if (event == NULL || PyList_Append(events, event) < 0)
            Py_CLEAR(events);
        Py_XDECREF(event);
    }
    Py_XDECREF(records);
    Py_XDECREF(batch.topic);
    Py_XDECREF(batch.collection);
    Py_XDECREF(batch.reader);
    Py_DECREF(batch.nothing);
    return events;
}

/* Whether the steps stay inside themselves, whatever they walk over. */
static int is_sound(const int32_t *step, const int32_t *end, Py_ssize_t *tags)
{
    while (step < end) {
        int32_t number = *step++, branches, place;
        const int32_t *sizes;
        switch (number) {
        case STEP_TAG:
            ++*tags;
            break;
        case STEP_FIXED:
            if (step == end || *step++ < 0)
                return 0;
            break;
        case STEP_BLOCKS:
            if (step == end || *step < 0 || *step > end - step - 1 ||
                !is_sound(step + 1, step + 1 + *step, tags))
                return 0;
            step += 1 + *step;
            break;
        case STEP_UNION:
            if (step == end || *step < 0 || *step > end - step - 1)
                return 0;
            branches = *step++;
            sizes = step;
            step += branches;
            for (place = 0; place < branches; place++) {
                if (sizes[place] < 0 || sizes[place] > end - step ||
                    !is_sound(step, step + sizes[place], tags))
                    return 0;
                step += sizes[place];
            }
            break;
        default:
            if (number < 0 || number >= STEP_COUNT)
                return 0;
        }
    }
    return 1;
}

static int32_t *steps_of(PyObject *numbers, int32_t **end, Py_ssize_t *tags)
{
    Py_ssize_t count = PyTuple_GET_SIZE(numbers), place;
    int32_t *steps = PyMem_Calloc((size_t)count + 1, sizeof *steps);
    if (steps == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (place = 0; place < count; place++) {
        long number = PyLong_AsLong(PyTuple_GET_ITEM(numbers, place));
        if (number == -1 && PyErr_Occurred())
            goto failed;
        steps[place] = number < 0 || number > INT32_MAX ? -1 : (int32_t)number;
    }
    *end = steps + count;
    if (is_sound(steps, *end, tags))
        return steps;
    PyErr_SetString(PyExc_ValueError, "steps that lead outside");
failed:
    PyMem_Free(steps);
    return NULL;
}

static PyObject *program_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *key, *value;
    Program *self;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "a program takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "OO!", &key, &PyTuple_Type, &value))
        return NULL;
    if (key != Py_None && !PyTuple_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "Program(tuple or None, tuple)");
        return NULL;
    }
    if ((self = (Program *)type->tp_alloc(type, 0)) == NULL)
        return NULL;
    if ((key != Py_None && (self->key = steps_of(key, &self->key_end, &self->tags)) == NULL) ||
        (self->value = steps_of(value, &self->value_end, &self->tags)) == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void program_dealloc(Program *self)
{
    Py_XDECREF(self->generation_number);
    Py_XDECREF(self->lsn_number);
    Py_XDECREF(self->xid_number);
    PyMem_Free(self->key);
    PyMem_Free(self->value);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyTypeObject ProgramType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "cdc.avro._decoder.Program",
    .tp_doc = "Program(key, value): the steps over a pair of schemas.",
    .tp_basicsize = sizeof(Program),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = program_new,
    .tp_dealloc = (destructor)program_dealloc,
};

static PyMethodDef METHODS[] = {
    {"deliver", (PyCFunction)(void (*)(void))deliver, METH_FASTCALL, deliver_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cdc.avro._decoder",
    .m_doc = "Records to events, compiled.",
    .m_size = -1,
    .m_methods = METHODS,
};

PyMODINIT_FUNC PyInit__decoder(void);

PyMODINIT_FUNC PyInit__decoder(void)
{
    PyObject *module;
    if (PyType_Ready(&ProgramType) < 0 || (module = PyModule_Create(&MODULE)) == NULL)
        return NULL;
    if (PyModule_AddStringConstant(module, "SOURCE_DIGEST", SOURCE_DIGEST) < 0 ||
        PyModule_AddObjectRef(module, "Program", (PyObject *)&ProgramType) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
