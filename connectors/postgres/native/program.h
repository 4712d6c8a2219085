/* The Python type Program: the rows of one table shape, as transcoder.py's generated functions read them.
 *
 * A row with anything doubtful in it is given to the Python function of the same road, which reads it or says what is
 * wrong: so nothing is raised here that Python would not raise, nor returned that Python would not return.
 */
#ifndef CDC_POSTGRES_PROGRAM_H
#define CDC_POSTGRES_PROGRAM_H

#include "connectors/postgres/native/row.h"

static PyObject *by_python(const Program *program, Road road, PyObject *const *arguments)
{
    PyObject *function = road == STREAM ? program->stream_row
                         : road == OLD  ? program->old_row
                                        : program->copy_row;
    return PyObject_Vectorcall(function, arguments, 2, NULL);
}

static PyObject *one_row(Program *program, Road road, PyObject *const *arguments, Py_ssize_t count)
{
    Made made;
    Py_ssize_t at;
    if (count != 2 || !PyBytes_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "a row is read of bytes, at an offset");
        return NULL;
    }
    at = PyLong_AsSsize_t(arguments[1]);
    if (at == -1 && PyErr_Occurred())
        return NULL;
    switch (transcode(program, road, arguments[0], at, &made)) {
    case DONE:
        break;
    case DOUBTFUL:
        return by_python(program, road, arguments);
    default:
        return NULL;
    }
    if (road == COPY) {
        Py_DECREF(made.unchanged);
        return Py_BuildValue("(NNn)", made.row, made.key, made.end);
    }
    return Py_BuildValue("(NNNn)", made.row, made.key, made.unchanged, made.end);
}

static PyObject *program_stream_row(Program *self, PyObject *const *arguments, Py_ssize_t count)
{
    return one_row(self, STREAM, arguments, count);
}

static PyObject *program_old_row(Program *self, PyObject *const *arguments, Py_ssize_t count)
{
    return one_row(self, OLD, arguments, count);
}

static PyObject *program_copy_row(Program *self, PyObject *const *arguments, Py_ssize_t count)
{
    return one_row(self, COPY, arguments, count);
}

/* All rows of a copy, as (key, row). */
static PyObject *program_copied(Program *self, PyObject *rows)
{
    PyObject *found, *pair, *zero = NULL;
    Py_ssize_t place;
    Made made;
    if (!PyList_CheckExact(rows)) {
        PyErr_SetString(PyExc_TypeError, "rows are a list of bytes");
        return NULL;
    }
    if ((found = PyList_New(0)) == NULL)
        return NULL;
    for (place = 0; place < PyList_GET_SIZE(rows); place++) {
        PyObject *row = PyList_GET_ITEM(rows, place);
        Outcome outcome;
        if (!PyBytes_CheckExact(row)) {
            PyErr_SetString(PyExc_TypeError, "a row is bytes");
            goto failed;
        }
        Py_INCREF(row);
        outcome = transcode(self, COPY, row, 0, &made);
        pair = NULL;
        if (outcome == DONE) {
            Py_DECREF(made.unchanged);
            if ((pair = PyTuple_New(2)) != NULL) {
                PyTuple_SET_ITEM(pair, 0, made.key);
                PyTuple_SET_ITEM(pair, 1, made.row);
                PyObject_GC_UnTrack(pair); /* bytes make no cycles */
            } else {
                Py_DECREF(made.key);
                Py_DECREF(made.row);
            }
        } else if (outcome == DOUBTFUL && (zero || (zero = PyLong_FromLong(0)) != NULL)) {
            PyObject *arguments[2] = {row, zero};
            PyObject *three = by_python(self, COPY, arguments);
            if (three != NULL) {
                pair = PyTuple_Pack(2, PyTuple_GetItem(three, 1), PyTuple_GetItem(three, 0));
                Py_DECREF(three);
            }
        }
        Py_DECREF(row);
        if (pair == NULL || PyList_Append(found, pair) < 0) {
            Py_XDECREF(pair);
            goto failed;
        }
        Py_DECREF(pair);
    }
    Py_XDECREF(zero);
    return found;
failed:
    Py_XDECREF(zero);
    Py_DECREF(found);
    return NULL;
}

static int parse_op(const char *name, Op *op)
{
    int place;
    for (place = 0; place < OP_COUNT; place++)
        if (strcmp(name, OP_NAMES[place]) == 0) {
            *op = (Op)place;
            return 0;
        }
    PyErr_Format(PyExc_ValueError, "no operation is called %s", name);
    return -1;
}

static int program_traverse(Program *self, visitproc visit, void *arg)
{
    Py_ssize_t place;
    for (place = 0; place < self->count && self->columns != NULL; place++) {
        Py_VISIT(self->columns[place].call);
        Py_VISIT(self->columns[place].text);
    }
    Py_VISIT(self->stream_row);
    Py_VISIT(self->old_row);
    Py_VISIT(self->copy_row);
    Py_VISIT(self->table);
    return 0;
}

static int program_clear(Program *self)
{
    Py_ssize_t place;
    for (place = 0; place < self->count && self->columns != NULL; place++) {
        ColumnCode *column = &self->columns[place];
        Py_CLEAR(column->name);
        Py_CLEAR(column->absent);
        Py_CLEAR(column->filler);
        Py_CLEAR(column->call);
        Py_CLEAR(column->text);
    }
    Py_CLEAR(self->stream_row);
    Py_CLEAR(self->old_row);
    Py_CLEAR(self->copy_row);
    Py_CLEAR(self->table);
    return 0;
}

static void program_dealloc(Program *self)
{
    PyObject_GC_UnTrack(self);
    program_clear(self);
    PyMem_Free(self->columns);
    PyMem_Free(self->key);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int column_init(ColumnCode *column, PyObject *code)
{
    const char *op;
    int nullable, in_key, text_only;
    if (!PyTuple_Check(code) ||
        !PyArg_ParseTuple(code, "sipppUSSOO", &op, &column->parameter, &nullable, &in_key,
                          &text_only, &column->name, &column->absent, &column->filler,
                          &column->call, &column->text)) {
        column->name = column->absent = column->filler = column->call = column->text = NULL;
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a column is a tuple of ten");
        return -1;
    }
    Py_INCREF(column->name);
    Py_INCREF(column->absent);
    Py_INCREF(column->filler);
    Py_INCREF(column->call);
    Py_INCREF(column->text);
    column->nullable = (char)nullable;
    column->in_key = (char)in_key;
    column->text_only = (char)text_only;
    return parse_op(op, &column->op);
}

static PyObject *program_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *columns, *key, *stream_row, *old_row, *copy_row;
    Py_ssize_t place;
    Program *self;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "a program takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "O!O!OOO", &PyTuple_Type, &columns, &PyTuple_Type, &key,
                          &stream_row, &old_row, &copy_row))
        return NULL;
    if ((self = (Program *)type->tp_alloc(type, 0)) == NULL)
        return NULL;
    self->columns = PyMem_Calloc((size_t)PyTuple_GET_SIZE(columns) + 1, sizeof *self->columns);
    self->key = PyMem_Calloc((size_t)PyTuple_GET_SIZE(key) + 1, sizeof *self->key);
    if (self->columns == NULL || self->key == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    self->count = PyTuple_GET_SIZE(columns);
    for (place = 0; place < self->count; place++)
        if (column_init(&self->columns[place], PyTuple_GET_ITEM(columns, place)) < 0)
            goto failed;
    self->key_count = PyTuple_GET_SIZE(key);
    for (place = 0; place < self->key_count; place++) {
        self->key[place] = PyLong_AsSsize_t(PyTuple_GET_ITEM(key, place));
        if (self->key[place] < 0 || self->key[place] >= self->count) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a key column that is not there");
            goto failed;
        }
    }
    Py_INCREF(stream_row);
    Py_INCREF(old_row);
    Py_INCREF(copy_row);
    self->stream_row = stream_row;
    self->old_row = old_row;
    self->copy_row = copy_row;
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static PyObject *program_with_table(Program *self, PyObject *table)
{
    Program *copy = (Program *)Py_TYPE(self)->tp_alloc(Py_TYPE(self), 0);
    Py_ssize_t place;
    if (copy == NULL)
        return NULL;
    copy->columns = PyMem_Calloc((size_t)self->count + 1, sizeof *copy->columns);
    copy->key = PyMem_Calloc((size_t)self->key_count + 1, sizeof *copy->key);
    if (copy->columns == NULL || copy->key == NULL) {
        Py_DECREF(copy);
        return PyErr_NoMemory();
    }
    copy->count = self->count;
    copy->key_count = self->key_count;
    memcpy(copy->key, self->key, (size_t)self->key_count * sizeof *self->key);
    for (place = 0; place < self->count; place++) {
        ColumnCode *column = &copy->columns[place];
        *column = self->columns[place];
        Py_INCREF(column->name);
        Py_INCREF(column->absent);
        Py_INCREF(column->filler);
        Py_INCREF(column->call);
        Py_INCREF(column->text);
    }
    Py_INCREF(self->stream_row);
    Py_INCREF(self->old_row);
    Py_INCREF(self->copy_row);
    Py_INCREF(table);
    copy->stream_row = self->stream_row;
    copy->old_row = self->old_row;
    copy->copy_row = self->copy_row;
    copy->table = table;
    return (PyObject *)copy;
}

#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef PROGRAM_METHODS[] = {
    {"stream_row", METHOD(program_stream_row), METH_FASTCALL, NULL},
    {"old_row", METHOD(program_old_row), METH_FASTCALL, NULL},
    {"copy_row", METHOD(program_copy_row), METH_FASTCALL, NULL},
    {"copied", (PyCFunction)program_copied, METH_O, "All rows of a copy, as (key, row)."},
    {"with_table", (PyCFunction)program_with_table, METH_O,
     "The same program, whose changes are of this table."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject ProgramType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "connectors.postgres._transcoder.Program",
    .tp_doc = "The rows of one table shape.",
    .tp_basicsize = sizeof(Program),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = program_new,
    .tp_dealloc = (destructor)program_dealloc,
    .tp_traverse = (traverseproc)program_traverse,
    .tp_clear = (inquiry)program_clear,
    .tp_methods = PROGRAM_METHODS,
};

#endif
