/* SPDX-License-Identifier: MIT */
/* CRC-32C a byte at a time: see crc32c.h. */
#include "crc32c.h"

#define POLYNOMIAL UINT32_C(0x82f63b78) /* 0x1edc6f41 with its bits reversed */

uint32_t crc32c(const void *bytes, size_t size)
{
    const unsigned char *next = bytes;
    /* Made for each call: nothing beside a whole section, and no state that threads would share. */
    uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (unsigned bit = 0; bit < 8; bit++) {
            value = (value >> 1) ^ ((value & 1) != 0 ? POLYNOMIAL : 0);
        }
        table[i] = value;
    }
    uint32_t sum = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        sum = (sum >> 8) ^ table[(sum ^ next[i]) & 0xff];
    }
    return ~sum;
}
