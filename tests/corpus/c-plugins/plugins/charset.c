/* The text in another character set, as hexadecimal; the C library loads the converter by its name. */
#include <errno.h>
#include <iconv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "textmill.h"

int mill_run(const struct mill_request *request, struct mill_reply *reply)
{
    const char *name = request->argument ? request->argument : "UTF-16BE";
    iconv_t converter = iconv_open(name, "UTF-8");
    if (converter == (iconv_t)-1) {
        if (asprintf(&reply->text, "%s: %s\n", name, strerror(errno)) < 0)
            reply->text = NULL;
        return 400;
    }
    char converted[1024];
    char *in = (char *)request->text, *out = converted;
    size_t in_left = strlen(in), out_left = sizeof converted;
    size_t failed = iconv(converter, &in, &in_left, &out, &out_left);
    if (failed != (size_t)-1)
        failed = iconv(converter, NULL, NULL, &out, &out_left);
    iconv_close(converter);
    if (failed == (size_t)-1) {
        reply->text = strdup("not in that character set\n");
        return 422;
    }
    size_t length = sizeof converted - out_left;
    reply->text = malloc(2 * length + 2);
    for (size_t i = 0; i < length; i++)
        sprintf(reply->text + 2 * i, "%02x", (unsigned char)converted[i]);
    strcpy(reply->text + 2 * length, "\n");
    return 200;
}
