/* SPDX-License-Identifier: MIT */
/* CRC-32C (Castagnoli; RFC 3720, appendix B.4), the checksum of the native format. */
#ifndef LARDER_TRACE_CRC32C_H
#define LARDER_TRACE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of "123456789" it is 0xe3069283. */
uint32_t crc32c(const void *bytes, size_t size);

#endif
