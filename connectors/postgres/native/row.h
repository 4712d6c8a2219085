/* One row of one table shape, from either road, to the Avro bytes of row and key; or the finding that it is doubtful.
 */
#ifndef CDC_POSTGRES_ROW_H
#define CDC_POSTGRES_ROW_H

#include "connectors/postgres/native/values.h"

typedef struct {
    Py_ssize_t start, end;
} Span;

typedef struct {
    PyObject_HEAD
    Py_ssize_t count, key_count;
    ColumnCode *columns;
    Py_ssize_t *key; /* places of the key's columns, in key order */
    PyObject *stream_row, *old_row, *copy_row, *table;
} Program;

typedef enum { STREAM, OLD, COPY } Road;

static PyObject *no_names; /* the empty tuple */

/* A row's Avro bytes, its key's, the columns that the log left unchanged, and where it ended in the frame. */
typedef struct {
    PyObject *row, *key, *unchanged;
    Py_ssize_t end;
} Made;

static void made_clear(Made *made)
{
    Py_CLEAR(made->row);
    Py_CLEAR(made->key);
    Py_CLEAR(made->unchanged);
}

static Outcome put_object(Bytes *to, PyObject *bytes)
{
    return put_bytes(to, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes));
}

/* One column whose field begins at ``*at`` of the frame; ``value`` is what of the row is its value, without a tag. */
static Outcome put_column(Bytes *to, const ColumnCode *column, Road road, PyObject *frame,
                          Py_ssize_t *at, Span *value, char *is_unchanged)
{
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(frame);
    Py_ssize_t size = PyBytes_GET_SIZE(frame), o = *at, length;
    Outcome outcome;
    int kind = 'b';
    if (road == COPY) {
        if (size - o < 4)
            return DOUBTFUL;
        if (data[o] == 255) {
            kind = 'n';
            o += 4;
        }
    } else {
        if (size - o < 1)
            return DOUBTFUL;
        kind = data[o++];
    }
    if (kind == 'b' || kind == 't') {
        if (size - o < 4)
            return DOUBTFUL;
        length = (int32_t)read_32(data + o);
        if (length < 0 || length > size - o - 4)
            return DOUBTFUL;
        if (column->nullable && put_byte(to, AVRO_PRESENT) < 0)
            return FAILED;
        value->start = to->size;
        if (kind == 't' || (column->text_only && road == COPY))
            outcome = put_by_call(to, column->text, frame, o, o + 4 + length);
        else if (column->text_only)
            outcome = DOUBTFUL;
        else
            outcome = put_value(to, column, data + o + 4, length, frame, o);
        value->end = to->size;
        *at = o + 4 + length;
        return outcome;
    }
    *at = o;
    if (kind == 'n') {
        if (column->nullable && put_byte(to, AVRO_NULL) < 0)
            return FAILED;
        value->start = to->size;
        outcome = DONE;
        if (!column->nullable)
            outcome = road == OLD && !column->in_key ? put_object(to, column->filler) : DOUBTFUL;
        value->end = to->size;
        return outcome;
    }
    if (kind == 'u') {
        value->start = to->size;
        outcome = put_object(to, column->absent); /* it brings its tag along */
        value->end = to->size;
        *is_unchanged = 1;
        return outcome;
    }
    return DOUBTFUL;
}

static PyObject *names_of(const Program *program, const char *flags, Py_ssize_t count)
{
    PyObject *names = PyTuple_New(count);
    Py_ssize_t place, at = 0;
    for (place = 0; names != NULL && place < program->count; place++)
        if (flags[place]) {
            Py_INCREF(program->columns[place].name);
            PyTuple_SET_ITEM(names, at++, program->columns[place].name);
        }
    return names;
}

#define FEW 64

static Outcome transcode(const Program *program, Road road, PyObject *frame, Py_ssize_t at,
                         Made *made)
{
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(frame);
    Span few_spans[FEW], *spans = few_spans;
    char few_flags[FEW], *flags = few_flags;
    Py_ssize_t place, unchanged = 0, key_size = 0;
    Outcome outcome = DOUBTFUL;
    Bytes row;
    memset(made, 0, sizeof *made);
    if (at < 0 || PyBytes_GET_SIZE(frame) < 2 || at > PyBytes_GET_SIZE(frame) - 2 ||
        read_16(data + at) != program->count)
        return DOUBTFUL;
    at += 2;
    bytes_init(&row);
    if (program->count > FEW) {
        spans = PyMem_Calloc((size_t)program->count, sizeof *spans + 1);
        if (spans == NULL) {
            PyErr_NoMemory();
            return FAILED;
        }
        flags = (char *)(spans + program->count);
    }
    for (place = 0; place < program->count; place++) {
        flags[place] = 0;
        outcome = put_column(&row, &program->columns[place], road, frame, &at, &spans[place],
                             &flags[place]);
        if (outcome != DONE)
            goto out;
        unchanged += flags[place];
    }
    outcome = FAILED;
    made->row = PyBytes_FromStringAndSize((char *)row.data, row.size);
    for (place = 0; place < program->key_count; place++) {
        Span span = spans[program->key[place]];
        key_size += span.end - span.start;
    }
    made->key = PyBytes_FromStringAndSize(NULL, key_size);
    if (made->row == NULL || made->key == NULL)
        goto out;
    key_size = 0;
    for (place = 0; place < program->key_count; place++) {
        Span span = spans[program->key[place]];
        memcpy(PyBytes_AS_STRING(made->key) + key_size, row.data + span.start,
               (size_t)(span.end - span.start));
        key_size += span.end - span.start;
    }
    if (unchanged == 0) {
        Py_INCREF(no_names);
        made->unchanged = no_names;
    } else if ((made->unchanged = names_of(program, flags, unchanged)) == NULL)
        goto out;
    made->end = at;
    outcome = DONE;
out:
    if (outcome != DONE)
        made_clear(made);
    if (spans != few_spans)
        PyMem_Free(spans);
    bytes_free(&row);
    return outcome;
}

#endif
