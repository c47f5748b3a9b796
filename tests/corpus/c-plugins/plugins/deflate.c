/* The text compressed and back again: its size, its compressed size and its CRC-32. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "textmill.h"

int mill_run(const struct mill_request *request, struct mill_reply *reply)
{
    uLong size = strlen(request->text);
    uLongf packed_size = compressBound(size), unpacked_size = size + 1;
    Bytef *packed = malloc(packed_size), *unpacked = calloc(1, unpacked_size);
    int failed = compress2(packed, &packed_size, (const Bytef *)request->text, size, 9) != Z_OK ||
                 uncompress(unpacked, &unpacked_size, packed, packed_size) != Z_OK ||
                 unpacked_size != size || memcmp(unpacked, request->text, size) != 0;
    uLong check = crc32(0, (const Bytef *)request->text, size);
    if (asprintf(&reply->text, "size=%lu smaller=%d crc32=%08lx\n", size, packed_size < size, check) < 0)
        reply->text = NULL;
    free(packed);
    free(unpacked);
    return failed ? 500 : 200;
}
