/* Single Avro values as fields of COPY's binary format, length in front: the type table's ``decode`` snippets compiled.
 *
 * What is not plain is doubtful, never an error: the row goes the Python road then, which is the reference.
 */
#ifndef CDC_POSTGRES_FIELDS_H
#define CDC_POSTGRES_FIELDS_H

#include "cdc/avro_bytes.h"
#include "cdc/avro_reading.h"

typedef enum {
    FIELD_CALL, /* by the column's Python function */
    FIELD_BYTES,
    FIELD_VERSIONED,
    FIELD_INT,
    FIELD_UINT,
    FIELD_FLOAT,
    FIELD_BOOL,
    FIELD_UUID,
    FIELD_DATE,
    FIELD_MICROS,
    FIELD_MILLIS,
    FIELD_ZONED,
    FIELD_TIME_MICROS,
    FIELD_TIME_MILLIS,
    FIELD_DECIMAL,
    FIELD_MONEY,
    FIELD_COUNT
} FieldOp;

static const char *const FIELD_NAMES[FIELD_COUNT] = {
    "call", "bytes",  "versioned", "int",   "uint",        "float",       "bool",    "uuid",
    "date", "micros", "millis",    "zoned", "time_micros", "time_millis", "decimal", "money",
};

typedef struct {
    FieldOp op;
    int parameter;
    char nullable;
    PyObject *call; /* (row, place) -> (value, end) */
} Field;

typedef enum { MADE = 0, DOUBTFUL = 1, FAILED = -1 } Outcome;

#define LARGEST_FIELD 0x3FFFFFFF /* PostgreSQL's limit for any value */
#define SHORTEST_ZONED 20        /* 2024-01-01T00:00:00Z */
#define LONGEST_ZONED 27         /* with six digits of the second */

static const int64_t EPOCH_DAYS = 10957; /* from 1970 to 2000 */
static const int64_t DAY_US = 86400000000LL;
static const int64_t EPOCH_US = 10957LL * 86400000000LL;
/* temporal.py: org.postgresql.PGStatement's infinity in microseconds since 1970, and where mirrored days begin */
static const int64_t INFINITE_US = 9223372036825200000LL;
static const int64_t MIRRORED_US = -(1LL << 58);

static inline void store_32(unsigned char *to, uint32_t value)
{
    to[0] = (unsigned char)(value >> 24);
    to[1] = (unsigned char)(value >> 16);
    to[2] = (unsigned char)(value >> 8);
    to[3] = (unsigned char)value;
}

/* A length and a number of so many bytes. */
static inline Outcome put_number(Bytes *to, int size, uint64_t value)
{
    unsigned char field[4 + 8];
    int place;
    store_32(field, (uint32_t)size);
    for (place = 0; place < size; place++)
        field[4 + place] = (unsigned char)(value >> (8 * (size - 1 - place)));
    return put_bytes(to, field, 4 + size) < 0 ? FAILED : MADE;
}

static inline Outcome put_field(Bytes *to, const void *value, size_t size)
{
    unsigned char length[4];
    if (size > LARGEST_FIELD)
        return DOUBTFUL;
    store_32(length, (uint32_t)size);
    if (put_bytes(to, length, 4) < 0 || put_bytes(to, value, (Py_ssize_t)size) < 0)
        return FAILED;
    return MADE;
}

static inline int digits_at(const unsigned char *at, int count, int *number)
{
    *number = 0;
    for (; count > 0; count--, at++) {
        if (*at < '0' || *at > '9')
            return -1;
        *number = *number * 10 + (*at - '0');
    }
    return 0;
}

/* The day counted from 2000-01-01 of years 0 to 9999: calendar.py's days_of(). -1 for no such day. */
static int day_of(int year, int month, int day, int64_t *days)
{
    static const int LENGTHS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int from_march, of_year;
    if (month < 1 || month > 12 || day < 1 || day > LENGTHS[month - 1] + (leap && month == 2))
        return -1;
    from_march = year + 400 - (month <= 2); /* an era later, so that nothing is negative */
    of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    *days = (int64_t)from_march * 365 + from_march / 4 - from_march / 100 + from_march / 400 +
            of_year - 730425 - 146097;
    return 0;
}

/* An ISO string in UTC with up to six digits of the second, as PostgreSQL's microseconds since 2000. */
static Outcome put_zoned(Bytes *to, const unsigned char *at, size_t size)
{
    int year, month, day, hour, minute, second, micros = 0, digits;
    int64_t days;
    if (size < SHORTEST_ZONED || size > LONGEST_ZONED || at[size - 1] != 'Z' || at[4] != '-' ||
        at[7] != '-' || at[10] != 'T' || at[13] != ':' || at[16] != ':' ||
        digits_at(at, 4, &year) < 0 || digits_at(at + 5, 2, &month) < 0 ||
        digits_at(at + 8, 2, &day) < 0 || digits_at(at + 11, 2, &hour) < 0 ||
        digits_at(at + 14, 2, &minute) < 0 || digits_at(at + 17, 2, &second) < 0 || hour > 23 ||
        minute > 59 || second > 59 || day_of(year, month, day, &days) < 0)
        return DOUBTFUL;
    if (size > SHORTEST_ZONED) {
        digits = (int)size - SHORTEST_ZONED - 1;
        if (at[19] != '.' || digits < 1 || digits_at(at + 20, digits, &micros) < 0)
            return DOUBTFUL;
        for (; digits < 6; digits++)
            micros *= 10;
    }
    return put_number(to, 8,
                      (uint64_t)(days * DAY_US +
                                 (hour * 3600LL + minute * 60LL + second) * 1000000LL + micros));
}

static inline int hex_digit(unsigned char character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    character |= 32;
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

static Outcome put_uuid(Bytes *to, const unsigned char *at, size_t size)
{
    unsigned char value[16];
    int place;
    if (size != 36 || at[8] != '-' || at[13] != '-' || at[18] != '-' || at[23] != '-')
        return DOUBTFUL;
    for (place = 0; place < 16; place++) {
        int high, low;
        if (place == 4 || place == 6 || place == 8 || place == 10)
            at++;
        high = hex_digit(*at++);
        low = hex_digit(*at++);
        if (high < 0 || low < 0)
            return DOUBTFUL;
        value[place] = (unsigned char)(high << 4 | low);
    }
    return put_field(to, value, sizeof value);
}

static inline void store_16(unsigned char *to, int value)
{
    to[0] = (unsigned char)(value >> 8);
    to[1] = (unsigned char)value;
}

/* Numeric of a declared scale, from the two's complement: numeric.py's unscaled_binary(), for up to 14 bytes. */
static Outcome put_decimal(Bytes *to, const unsigned char *at, size_t size, int scale)
{
    unsigned __int128 number;
    __int128 value;
    unsigned char field[4 + 8 + 2 * 12];
    int groups[12], count = 0, last = 0, pad, place, weight;
    if (size == 0 || size > 14 || scale < 0)
        return DOUBTFUL;
    value = at[0] & 128 ? -1 : 0;
    for (; size > 0; size--)
        value = (__int128)((unsigned __int128)value << 8 | *at++);
    store_32(field, 8);
    memset(field + 4, 0, 8);
    store_16(field + 10, scale);
    if (value == 0)
        return put_bytes(to, field, 12) < 0 ? FAILED : MADE;
    number = value < 0 ? (unsigned __int128)-value : (unsigned __int128)value;
    pad = (4 - scale % 4) % 4;
    for (place = 0; place < pad; place++)
        number *= 10;
    for (; number > 0; number /= 10000)
        groups[count++] = (int)(number % 10000);
    weight = count - (scale + pad) / 4 - 1;
    while (groups[last] == 0)
        last++;
    store_32(field, (uint32_t)(8 + 2 * (count - last)));
    store_16(field + 4, count - last);
    store_16(field + 6, weight);
    store_16(field + 8, value < 0 ? 0x4000 : 0);
    for (place = count - 1; place >= last; place--)
        store_16(field + 12 + 2 * (count - 1 - place), groups[place]);
    return put_bytes(to, field, 12 + 2 * (count - last)) < 0 ? FAILED : MADE;
}

/* Two's complement, filled up to 64 bits. */
static Outcome put_money(Bytes *to, const unsigned char *at, size_t size)
{
    uint64_t value;
    if (size == 0 || size > 8)
        return DOUBTFUL;
    value = at[0] & 128 ? UINT64_MAX : 0;
    for (; size > 0; size--)
        value = value << 8 | *at++;
    return put_number(to, 8, value);
}

/* What the column's function gives for the value at the reading's place in ``row``. */
static Outcome put_by_call(Bytes *to, PyObject *call, PyObject *row, Reading *from)
{
    const unsigned char *begin = (const unsigned char *)PyBytes_AS_STRING(row);
    PyObject *place, *found, *arguments[2];
    Outcome outcome = DOUBTFUL;
    if ((place = PyLong_FromSsize_t(from->at - begin)) == NULL)
        return FAILED;
    arguments[0] = row;
    arguments[1] = place;
    found = PyObject_Vectorcall(call, arguments, 2, NULL);
    Py_DECREF(place);
    if (found == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return FAILED;
        PyErr_Clear(); /* the Python road meets it again, and says it in its own words */
        return DOUBTFUL;
    }
    if (PyTuple_CheckExact(found) && PyTuple_GET_SIZE(found) == 2 &&
        PyBytes_CheckExact(PyTuple_GET_ITEM(found, 0)) &&
        PyLong_CheckExact(PyTuple_GET_ITEM(found, 1))) {
        PyObject *value = PyTuple_GET_ITEM(found, 0);
        Py_ssize_t end = PyLong_AsSsize_t(PyTuple_GET_ITEM(found, 1));
        if (end == -1 && PyErr_Occurred())
            PyErr_Clear(); /* a length past any end */
        else if (end >= from->at - begin && end <= from->end - begin) {
            from->at = begin + end;
            outcome = put_field(to, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
        }
    }
    Py_DECREF(found);
    return outcome;
}

static Outcome put_whole_number(Bytes *to, const Field *field, Reading *from)
{
    int64_t value;
    if (read_long(from, &value) < 0)
        return DOUBTFUL;
    switch (field->op) {
    case FIELD_INT:
        if ((field->parameter == 2 && (value < INT16_MIN || value > INT16_MAX)) ||
            (field->parameter == 4 && (value < INT32_MIN || value > INT32_MAX)) ||
            (field->parameter != 2 && field->parameter != 4 && field->parameter != 8))
            return DOUBTFUL;
        return put_number(to, field->parameter, (uint64_t)value);
    case FIELD_UINT:
        if (field->parameter != 4 || value < 0 || value > UINT32_MAX)
            return DOUBTFUL;
        return put_number(to, 4, (uint64_t)value);
    case FIELD_DATE:
        if (value < INT32_MIN + EPOCH_DAYS || value >= INT32_MAX)
            return DOUBTFUL;
        return put_number(to, 4, (uint64_t)(value - EPOCH_DAYS));
    case FIELD_MICROS:
        if (value <= MIRRORED_US || value >= INFINITE_US)
            return DOUBTFUL;
        return put_number(to, 8, (uint64_t)(value - EPOCH_US));
    case FIELD_MILLIS:
        if (value <= MIRRORED_US / 1000 || value >= INFINITE_US / 1000)
            return DOUBTFUL;
        return put_number(to, 8, (uint64_t)(value * 1000 - EPOCH_US));
    case FIELD_TIME_MILLIS:
        if (value < 0 || value > DAY_US / 1000)
            return DOUBTFUL;
        return put_number(to, 8, (uint64_t)(value * 1000));
    default: /* FIELD_TIME_MICROS */
        return put_number(to, 8, (uint64_t)value);
    }
}

/* A value that is not null; the reading stands behind it then. */
static Outcome put_value(Bytes *to, const Field *field, PyObject *row, Reading *from)
{
    const unsigned char *value;
    unsigned char turned[8];
    size_t size;
    int place;
    switch (field->op) {
    case FIELD_INT:
    case FIELD_UINT:
    case FIELD_DATE:
    case FIELD_MICROS:
    case FIELD_MILLIS:
    case FIELD_TIME_MICROS:
    case FIELD_TIME_MILLIS:
        return put_whole_number(to, field, from);
    case FIELD_FLOAT:
        value = from->at;
        if ((field->parameter != 4 && field->parameter != 8) ||
            read_skip(from, (uint64_t)field->parameter) < 0)
            return DOUBTFUL;
        for (place = 0; place < field->parameter; place++)
            turned[place] = value[field->parameter - 1 - place];
        return put_field(to, turned, (size_t)field->parameter);
    case FIELD_BOOL:
        value = from->at;
        if (read_skip(from, 1) < 0)
            return DOUBTFUL;
        turned[0] = *value != 0;
        return put_field(to, turned, 1);
    case FIELD_CALL:
    case FIELD_COUNT:
        return put_by_call(to, field->call, row, from);
    default:
        break;
    }
    if (read_sized(from, &value, &size) < 0)
        return DOUBTFUL;
    switch (field->op) {
    case FIELD_BYTES:
        return put_field(to, value, size);
    case FIELD_VERSIONED:
        if (size >= LARGEST_FIELD || bytes_reserve(to, 5) < 0)
            return PyErr_Occurred() ? FAILED : DOUBTFUL;
        store_32(to->data + to->size, (uint32_t)size + 1);
        to->data[to->size + 4] = 1;
        to->size += 5;
        return put_bytes(to, value, (Py_ssize_t)size) < 0 ? FAILED : MADE;
    case FIELD_UUID:
        return put_uuid(to, value, size);
    case FIELD_ZONED:
        return put_zoned(to, value, size);
    case FIELD_DECIMAL:
        return put_decimal(to, value, size, field->parameter);
    default: /* FIELD_MONEY */
        return put_money(to, value, size);
    }
}

#endif
