/* Avro rows to tuples of COPY's binary format: tuples.py's generated functions, compiled.
 *
 * A row with anything doubtful in it is given to the Python function, which makes its tuple or says what is wrong: so
 * nothing is raised here that Python would not raise, nor returned that Python would not return.
 */
#include "connectors/postgres/native/fields.h"

#ifndef SOURCE_DIGEST
#define SOURCE_DIGEST ""
#endif

#define UNION_NULL 0
#define UNION_PRESENT 2

typedef struct {
    PyObject_HEAD
    Py_ssize_t count;
    Field *fields;
    PyObject *tuple_of, *columns_of; /* Python's */
} Program;

/* The fields of one row, behind whatever stands in the buffer. */
static Outcome put_row(const Program *program, Bytes *to, PyObject *row)
{
    static const unsigned char NONE[4] = {255, 255, 255, 255};
    Reading from;
    Py_ssize_t place;
    from.at = (const unsigned char *)PyBytes_AS_STRING(row);
    from.end = from.at + PyBytes_GET_SIZE(row);
    for (place = 0; place < program->count; place++) {
        const Field *field = &program->fields[place];
        Outcome outcome;
        if (field->nullable) {
            if (from.at == from.end)
                return DOUBTFUL;
            if (*from.at == UNION_NULL) {
                from.at++;
                if (put_bytes(to, NONE, 4) < 0)
                    return FAILED;
                continue;
            }
            if (*from.at++ != UNION_PRESENT)
                return DOUBTFUL;
        }
        outcome = put_value(to, field, row, &from);
        if (outcome != MADE)
            return outcome;
    }
    return from.at == from.end ? MADE : DOUBTFUL;
}

/* One row behind ``head``, what the doubtful come to by Python included; 0 or -1. */
static int put_headed(const Program *program, Bytes *to, const char *head, Py_ssize_t head_size,
                      PyObject *row)
{
    Py_ssize_t begun = to->size;
    PyObject *made;
    int done;
    if (!PyBytes_CheckExact(row)) {
        PyErr_SetString(PyExc_TypeError, "a row is bytes");
        return -1;
    }
    if (put_bytes(to, head, head_size) < 0)
        return -1;
    switch (put_row(program, to, row)) {
    case MADE:
        return 0;
    case FAILED:
        return -1;
    case DOUBTFUL:
        break;
    }
    to->size = begun + head_size;
    if ((made = PyObject_CallOneArg(program->tuple_of, row)) == NULL)
        return -1;
    if (!PyBytes_CheckExact(made) || PyBytes_GET_SIZE(made) < 2) {
        PyErr_SetString(PyExc_TypeError, "a tuple is bytes");
        done = -1;
    } else
        done = put_bytes(to, PyBytes_AS_STRING(made) + 2, PyBytes_GET_SIZE(made) - 2);
    Py_DECREF(made);
    return done;
}

static void count_of(const Program *program, char *head)
{
    head[0] = (char)(program->count >> 8);
    head[1] = (char)program->count;
}

static PyObject *taken(Bytes *from, int outcome)
{
    PyObject *made =
        outcome < 0 ? NULL : PyBytes_FromStringAndSize((char *)from->data, from->size);
    bytes_free(from);
    return made;
}

static PyObject *program_tuple_of(Program *self, PyObject *row)
{
    char head[2];
    Bytes to;
    count_of(self, head);
    bytes_init(&to);
    return taken(&to, put_headed(self, &to, head, 2, row));
}

PyDoc_STRVAR(headed_doc, "headed(head, row): the row's fields behind ``head``, without their count.");

static PyObject *program_headed(Program *self, PyObject *const *arguments, Py_ssize_t count)
{
    Bytes to;
    if (count != 2 || !PyBytes_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "headed(bytes, bytes)");
        return NULL;
    }
    bytes_init(&to);
    return taken(&to, put_headed(self, &to, PyBytes_AS_STRING(arguments[0]),
                                 PyBytes_GET_SIZE(arguments[0]), arguments[1]));
}

PyDoc_STRVAR(tuples_doc, "tuples(rows): the tuples of a list of rows, one behind the other.");

static PyObject *program_tuples(Program *self, PyObject *rows)
{
    Py_ssize_t place;
    int outcome = 0;
    char head[2];
    Bytes to;
    if (!PyList_CheckExact(rows)) {
        PyErr_SetString(PyExc_TypeError, "rows are a list of bytes");
        return NULL;
    }
    count_of(self, head);
    bytes_init(&to);
    for (place = 0; outcome == 0 && place < PyList_GET_SIZE(rows); place++) {
        PyObject *row = PyList_GET_ITEM(rows, place);
        Py_INCREF(row); /* a column's function might change the list */
        outcome = put_headed(self, &to, head, 2, row);
        Py_DECREF(row);
    }
    return taken(&to, outcome);
}

static PyObject *values_of(const Program *self, const Bytes *from)
{
    const unsigned char *at = from->data;
    PyObject *values = PyList_New(self->count);
    Py_ssize_t place;
    for (place = 0; values != NULL && place < self->count; place++) {
        int32_t size = (int32_t)((uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 |
                                 (uint32_t)at[2] << 8 | at[3]);
        PyObject *value = Py_None;
        at += 4;
        if (size < 0)
            Py_INCREF(value);
        else if ((value = PyBytes_FromStringAndSize((const char *)at, size)) == NULL) {
            Py_CLEAR(values);
            break;
        } else
            at += size;
        PyList_SET_ITEM(values, place, value);
    }
    return values;
}

static PyObject *program_columns_of(Program *self, PyObject *row)
{
    PyObject *values = NULL;
    Outcome outcome = DOUBTFUL;
    Bytes to;
    bytes_init(&to);
    if (PyBytes_CheckExact(row))
        outcome = put_row(self, &to, row);
    if (outcome == MADE)
        values = values_of(self, &to);
    bytes_free(&to);
    return outcome == DOUBTFUL ? PyObject_CallOneArg(self->columns_of, row) : values;
}

static int field_init(Field *field, PyObject *code)
{
    const char *name;
    int nullable, place;
    if (!PyTuple_Check(code) || !PyArg_ParseTuple(code, "sipO", &name, &field->parameter, &nullable,
                                                  &field->call)) {
        field->call = NULL;
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a column is a tuple of four");
        return -1;
    }
    Py_INCREF(field->call);
    field->nullable = (char)nullable;
    for (place = 0; place < FIELD_COUNT; place++)
        if (strcmp(name, FIELD_NAMES[place]) == 0) {
            field->op = (FieldOp)place;
            return 0;
        }
    PyErr_Format(PyExc_ValueError, "no operation is called %s", name);
    return -1;
}

static int program_traverse(Program *self, visitproc visit, void *arg)
{
    Py_ssize_t place;
    for (place = 0; self->fields != NULL && place < self->count; place++)
        Py_VISIT(self->fields[place].call);
    Py_VISIT(self->tuple_of);
    Py_VISIT(self->columns_of);
    return 0;
}

static int program_clear(Program *self)
{
    Py_ssize_t place;
    for (place = 0; self->fields != NULL && place < self->count; place++)
        Py_CLEAR(self->fields[place].call);
    Py_CLEAR(self->tuple_of);
    Py_CLEAR(self->columns_of);
    return 0;
}

static void program_dealloc(Program *self)
{
    PyObject_GC_UnTrack(self);
    program_clear(self);
    PyMem_Free(self->fields);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *program_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *columns, *tuple_of, *columns_of;
    Py_ssize_t place;
    Program *self;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "a program takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "O!OO", &PyTuple_Type, &columns, &tuple_of, &columns_of))
        return NULL;
    if (PyTuple_GET_SIZE(columns) > INT16_MAX) {
        PyErr_SetString(PyExc_ValueError, "more columns than a tuple counts");
        return NULL;
    }
    if ((self = (Program *)type->tp_alloc(type, 0)) == NULL)
        return NULL;
    self->fields = PyMem_Calloc((size_t)PyTuple_GET_SIZE(columns) + 1, sizeof *self->fields);
    if (self->fields == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->count = PyTuple_GET_SIZE(columns);
    for (place = 0; place < self->count; place++)
        if (field_init(&self->fields[place], PyTuple_GET_ITEM(columns, place)) < 0) {
            Py_DECREF(self);
            return NULL;
        }
    Py_INCREF(tuple_of);
    Py_INCREF(columns_of);
    self->tuple_of = tuple_of;
    self->columns_of = columns_of;
    return (PyObject *)self;
}

static PyMethodDef PROGRAM_METHODS[] = {
    {"tuple_of", (PyCFunction)program_tuple_of, METH_O, "One tuple, its column count in front."},
    {"headed", (PyCFunction)(void (*)(void))program_headed, METH_FASTCALL, headed_doc},
    {"tuples", (PyCFunction)program_tuples, METH_O, tuples_doc},
    {"columns_of", (PyCFunction)program_columns_of, METH_O,
     "Each column's binary value, None for NULL."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject ProgramType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "connectors.postgres._tuples.Program",
    .tp_doc = "Program(columns, tuple_of, columns_of): the rows of one row schema.",
    .tp_basicsize = sizeof(Program),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = program_new,
    .tp_dealloc = (destructor)program_dealloc,
    .tp_traverse = (traverseproc)program_traverse,
    .tp_clear = (inquiry)program_clear,
    .tp_methods = PROGRAM_METHODS,
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "connectors.postgres._tuples",
    .m_doc = "Avro rows to tuples of COPY's binary format, compiled.",
    .m_size = -1,
};

PyMODINIT_FUNC PyInit__tuples(void);

PyMODINIT_FUNC PyInit__tuples(void)
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
