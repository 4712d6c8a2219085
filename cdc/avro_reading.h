/* Avro's binary form, read with bounds: for the accelerators. A reader that fails has read nothing outside its bytes.
 */
#ifndef CDC_AVRO_READING_H
#define CDC_AVRO_READING_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const unsigned char *at, *end;
} Reading;

/* A varint, its zigzag not undone. 0, or -1 for one that is cut, or longer than any writer makes it. */
static inline int read_raw(Reading *from, uint64_t *raw)
{
    const unsigned char *at = from->at;
    uint64_t value;
    int shift;
    if (at == from->end)
        return -1;
    value = *at++;
    if (value >= 128) {
        value &= 127;
        for (shift = 7;; shift += 7) {
            if (at == from->end || shift > 63 || (shift == 63 && *at > 1))
                return -1;
            value |= (uint64_t)(*at & 127) << shift;
            if (*at++ < 128)
                break;
        }
    }
    from->at = at;
    *raw = value;
    return 0;
}

static inline int64_t zigzag_undone(uint64_t raw)
{
    return (int64_t)(raw >> 1) ^ -(int64_t)(raw & 1);
}

static inline int read_long(Reading *from, int64_t *value)
{
    uint64_t raw;
    if (read_raw(from, &raw) < 0)
        return -1;
    *value = zigzag_undone(raw);
    return 0;
}

/* A number of bytes that are there; 0 or -1. */
static inline int read_skip(Reading *from, uint64_t count)
{
    if (count > (uint64_t)(from->end - from->at))
        return -1;
    from->at += count;
    return 0;
}

/* Bytes or a string's: where they stand, and how many. 0 or -1. */
static inline int read_sized(Reading *from, const unsigned char **bytes, size_t *size)
{
    uint64_t raw;
    if (read_raw(from, &raw) < 0 || raw & 1)
        return -1;
    *bytes = from->at;
    *size = (size_t)(raw >> 1);
    return read_skip(from, raw >> 1);
}

#endif
