/* Single values of PostgreSQL's binary form as Avro bytes: the compiled form of the type table's ``encode`` snippets.
 *
 * Nothing is read outside a value: its size is known to lie inside the frame, and each operation compares it with what
 * it needs. What is not plain is doubtful, never an error.
 */
#ifndef CDC_POSTGRES_VALUES_H
#define CDC_POSTGRES_VALUES_H

#include "cdc/avro_bytes.h"

typedef enum {
    OP_CALL, /* by the column's Python function */
    OP_BYTES,
    OP_VERSIONED,
    OP_INT,
    OP_UINT,
    OP_FLOAT,
    OP_BOOL,
    OP_UUID,
    OP_DATE,
    OP_MICROS,
    OP_MILLIS,
    OP_ZONED,
    OP_TIME_MICROS,
    OP_TIME_MILLIS,
    OP_DECIMAL,
    OP_MONEY,
    OP_COUNT
} Op;

static const char *const OP_NAMES[OP_COUNT] = {
    "call", "bytes",  "versioned", "int",   "uint",        "float",       "bool",    "uuid",
    "date", "micros", "millis",    "zoned", "time_micros", "time_millis", "decimal", "money",
};

typedef struct {
    Op op;
    int parameter;
    char nullable, in_key, text_only;
    PyObject *name, *absent, *filler, *call, *text;
} ColumnCode;

/* What transcoding came to: done, doubtful (the Python road is to be taken), or an error that is set. */
typedef enum { DONE = 0, DOUBTFUL = 1, FAILED = -1 } Outcome;

static const int64_t EPOCH_DAYS = 10957;
static const int64_t DAY_US = 86400000000LL;
static const int64_t EPOCH_US = 10957LL * 86400000000LL;
/* org.postgresql.PGStatement's infinity, in microseconds since 1970: temporal.py */
static const int64_t INFINITY_US = 9223372036825200000LL;

static inline uint16_t read_16(const unsigned char *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t read_32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline uint64_t read_64(const unsigned char *at)
{
    return (uint64_t)read_32(at) << 32 | read_32(at + 4);
}

/* Year, month and day of a day counted from 2000-01-01; calendar.py's civil(). */
static void civil(int64_t days, int64_t *year, int *month, int *day)
{
    int64_t z = days + 730425;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t of_era = z - era * 146097;
    int64_t of_year_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * of_year_era + of_year_era / 4 - of_year_era / 100);
    int64_t shifted = (5 * of_year + 2) / 153;
    *day = (int)(of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = era * 400 + of_year_era + (*month <= 2);
}

static inline void two_digits(unsigned char *at, int number)
{
    at[0] = (unsigned char)('0' + number / 10);
    at[1] = (unsigned char)('0' + number % 10);
}

/* A timestamptz as an ISO string in UTC with this many digits of the second. */
static Outcome put_zoned(Bytes *to, int64_t micros, int digits)
{
    static const int POWERS[] = {1, 10, 100, 1000, 10000, 100000, 1000000};
    unsigned char text[40], *at = text + 1;
    int64_t days, rest, year;
    int month, day, seconds, fraction, place;
    if (digits < 0 || digits > 6 || micros == INT64_MAX || micros == INT64_MIN)
        return DOUBTFUL;
    days = micros / DAY_US;
    rest = micros % DAY_US;
    if (rest < 0) {
        days -= 1;
        rest += DAY_US;
    }
    civil(days, &year, &month, &day);
    seconds = (int)(rest / 1000000);
    fraction = (int)(rest % 1000000);
    if (year < 0 || year > 9999 || fraction % POWERS[6 - digits] != 0)
        return DOUBTFUL;
    two_digits(at, (int)(year / 100));
    two_digits(at + 2, (int)(year % 100));
    at[4] = '-';
    two_digits(at + 5, month);
    at[7] = '-';
    two_digits(at + 8, day);
    at[10] = 'T';
    two_digits(at + 11, seconds / 3600);
    at[13] = ':';
    two_digits(at + 14, seconds / 60 % 60);
    at[16] = ':';
    two_digits(at + 17, seconds % 60);
    at += 19;
    if (digits) {
        fraction /= POWERS[6 - digits];
        *at++ = '.';
        for (place = digits - 1; place >= 0; place--) {
            at[place] = (unsigned char)('0' + fraction % 10);
            fraction /= 10;
        }
        at += digits;
    }
    *at++ = 'Z';
    text[0] = (unsigned char)((at - text - 1) << 1); /* at most 27 characters: one byte of length */
    return put_bytes(to, text, at - text);
}

/* Avro bytes of the least two's complement. */
static Outcome put_twos_complement(Bytes *to, __int128 number)
{
    unsigned __int128 bits = (unsigned __int128)(number >= 0 ? number : ~number);
    unsigned char text[1 + 17];
    int size = 1, place;
    while (bits >> 7) {
        bits >>= 8;
        size++;
    }
    text[0] = (unsigned char)(size << 1);
    for (place = size; place > 0; place--) {
        text[place] = (unsigned char)(number & 0xFF);
        number >>= 8;
    }
    return put_bytes(to, text, size + 1);
}

/* Numeric of a declared scale: numeric.py's decimal_avro(), for what has at most 36 digits. */
static Outcome put_decimal(Bytes *to, const unsigned char *at, Py_ssize_t size, int scale)
{
    unsigned __int128 number = 0;
    int count, weight, sign, exponent, place;
    if (size < 8 || size & 1)
        return DOUBTFUL;
    count = read_16(at);
    weight = (int16_t)read_16(at + 2);
    sign = read_16(at + 4);
    if (size != 8 + 2 * (Py_ssize_t)count || (sign != 0 && sign != 0x4000) ||
        read_16(at + 6) != scale)
        return DOUBTFUL;
    if (count == 0)
        return put_twos_complement(to, 0);
    exponent = (weight - count + 1) * 4 + scale;
    if (count > 9 || exponent > 36 - 4 * count || exponent < -4 * count)
        return DOUBTFUL;
    for (place = 0; place < count; place++) {
        int digit = read_16(at + 8 + 2 * place);
        if (digit > 9999)
            return DOUBTFUL;
        number = number * 10000 + (unsigned)digit;
    }
    for (; exponent > 0; exponent--)
        number *= 10;
    for (; exponent < 0; exponent++)
        number /= 10;
    return put_twos_complement(to, sign ? -(__int128)number : (__int128)number);
}

static Outcome put_uuid(Bytes *to, const unsigned char *at)
{
    static const char HEX[] = "0123456789abcdef";
    unsigned char text[37], *out = text;
    int place;
    *out++ = 36 << 1;
    for (place = 0; place < 16; place++) {
        if (place == 4 || place == 6 || place == 8 || place == 10)
            *out++ = '-';
        *out++ = (unsigned char)HEX[at[place] >> 4];
        *out++ = (unsigned char)HEX[at[place] & 15];
    }
    return put_bytes(to, text, out - text);
}

/* What a function (frame, offset) -> (bytes, end) gives for the value whose length stands at ``q``. */
static Outcome put_by_call(Bytes *to, PyObject *call, PyObject *frame, Py_ssize_t q,
                           Py_ssize_t end)
{
    PyObject *place, *found, *arguments[2];
    Outcome outcome = DOUBTFUL;
    if ((place = PyLong_FromSsize_t(q)) == NULL)
        return FAILED;
    arguments[0] = frame;
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
        PyLong_CheckExact(PyTuple_GET_ITEM(found, 1)) &&
        PyLong_AsSsize_t(PyTuple_GET_ITEM(found, 1)) == end) {
        PyObject *value = PyTuple_GET_ITEM(found, 0);
        outcome = put_bytes(to, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    }
    Py_DECREF(found);
    if (PyErr_Occurred())
        return FAILED;
    return outcome;
}

/* The value of ``size`` bytes at ``at``, as the column's Avro type. ``q`` is where its length stands in ``frame``. */
static Outcome put_value(Bytes *to, const ColumnCode *column, const unsigned char *at,
                         Py_ssize_t size, PyObject *frame, Py_ssize_t q)
{
    int64_t number;
    switch (column->op) {
    case OP_BYTES:
        if (put_long(to, size) < 0)
            return FAILED;
        return put_bytes(to, at, size);
    case OP_VERSIONED:
        if (size < 1 || at[0] != 1)
            return DOUBTFUL;
        if (put_long(to, size - 1) < 0)
            return FAILED;
        return put_bytes(to, at + 1, size - 1);
    case OP_INT:
        if (size != column->parameter)
            return DOUBTFUL;
        if (size == 4)
            return put_long(to, (int32_t)read_32(at));
        if (size == 8)
            return put_long(to, (int64_t)read_64(at));
        return size == 2 ? (Outcome)put_long(to, (int16_t)read_16(at)) : DOUBTFUL;
    case OP_UINT:
        return size == 4 && column->parameter == 4 ? (Outcome)put_long(to, read_32(at)) : DOUBTFUL;
    case OP_FLOAT:
        if (size != column->parameter || size > 8)
            return DOUBTFUL;
        if (bytes_reserve(to, size) < 0)
            return FAILED;
        while (size > 0)
            to->data[to->size++] = at[--size];
        return DONE;
    case OP_BOOL:
        return size == 1 && at[0] <= 1 ? (Outcome)put_byte(to, at[0]) : DOUBTFUL;
    case OP_UUID:
        return size == 16 ? put_uuid(to, at) : DOUBTFUL;
    case OP_DATE:
        if (size != 4)
            return DOUBTFUL;
        number = (int32_t)read_32(at);
        if (number > INT32_MIN && number < INT32_MAX)
            number += EPOCH_DAYS;
        return put_long(to, number);
    case OP_MICROS:
    case OP_MILLIS:
        if (size != 8)
            return DOUBTFUL;
        number = (int64_t)read_64(at);
        if (number == INT64_MIN || number >= INFINITY_US - EPOCH_US)
            return DOUBTFUL;
        number += EPOCH_US;
        if (column->op == OP_MILLIS) {
            if (number % 1000 != 0)
                return DOUBTFUL;
            number /= 1000;
            if (number >= INFINITY_US / 1000)
                return DOUBTFUL;
        }
        return put_long(to, number);
    case OP_ZONED:
        return size == 8 ? put_zoned(to, (int64_t)read_64(at), column->parameter) : DOUBTFUL;
    case OP_TIME_MICROS:
    case OP_TIME_MILLIS:
        if (size != 8)
            return DOUBTFUL;
        number = (int64_t)read_64(at);
        if (column->op == OP_TIME_MILLIS) {
            if (number < 0 || number % 1000 != 0)
                return DOUBTFUL;
            number /= 1000;
        }
        return put_long(to, number);
    case OP_DECIMAL:
        return put_decimal(to, at, size, column->parameter);
    case OP_MONEY:
        return size == 8 ? put_twos_complement(to, (int64_t)read_64(at)) : DOUBTFUL;
    case OP_CALL:
    case OP_COUNT:
        break;
    }
    return put_by_call(to, column->call, frame, q, q + 4 + size);
}

#endif
