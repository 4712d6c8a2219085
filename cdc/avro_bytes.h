/* Avro's binary form, written into a growing buffer: what cdc/avro_binary.py is in Python, for the accelerators.
 *
 * Every function that writes returns 0, or -1 with MemoryError set.
 */
#ifndef CDC_AVRO_BYTES_H
#define CDC_AVRO_BYTES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define AVRO_NULL 0
#define AVRO_PRESENT 2
#define LONGEST_VARINT 10

typedef struct {
    unsigned char *data;
    Py_ssize_t size, room;
    unsigned char first[2048]; /* most rows fit here */
} Bytes;

static inline void bytes_init(Bytes *to)
{
    to->data = to->first;
    to->size = 0;
    to->room = (Py_ssize_t)sizeof to->first;
}

static inline void bytes_free(Bytes *to)
{
    if (to->data != to->first)
        PyMem_Free(to->data);
}

static int bytes_grow(Bytes *to, Py_ssize_t more)
{
    Py_ssize_t room;
    unsigned char *data;
    if (more > PY_SSIZE_T_MAX / 2 - to->size) {
        PyErr_NoMemory();
        return -1;
    }
    room = to->room * 2 > to->size + more ? to->room * 2 : to->size + more;
    data = to->data == to->first ? PyMem_Malloc((size_t)room)
                                 : PyMem_Realloc(to->data, (size_t)room);
    if (data == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (to->data == to->first)
        memcpy(data, to->first, (size_t)to->size);
    to->data = data;
    to->room = room;
    return 0;
}

/* Makes sure that ``more`` bytes can be written at data + size. */
static inline int bytes_reserve(Bytes *to, Py_ssize_t more)
{
    return more <= to->room - to->size ? 0 : bytes_grow(to, more);
}

static inline int put_bytes(Bytes *to, const void *from, Py_ssize_t count)
{
    if (bytes_reserve(to, count) < 0)
        return -1;
    memcpy(to->data + to->size, from, (size_t)count);
    to->size += count;
    return 0;
}

static inline int put_byte(Bytes *to, unsigned char byte)
{
    if (bytes_reserve(to, 1) < 0)
        return -1;
    to->data[to->size++] = byte;
    return 0;
}

/* Writes at ``at``, which has room for LONGEST_VARINT bytes; where it ends. */
static inline unsigned char *varint_at(unsigned char *at, int64_t value)
{
    uint64_t raw = ((uint64_t)value << 1) ^ (value < 0 ? UINT64_MAX : 0);
    while (raw > 127) {
        *at++ = (unsigned char)(raw & 127) | 128;
        raw >>= 7;
    }
    *at++ = (unsigned char)raw;
    return at;
}

static inline int put_long(Bytes *to, int64_t value)
{
    if (bytes_reserve(to, LONGEST_VARINT) < 0)
        return -1;
    to->size = varint_at(to->data + to->size, value) - to->data;
    return 0;
}

#endif
