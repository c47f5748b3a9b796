/* Every match of a regular expression, one a line. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "textmill.h"

int mill_run(const struct mill_request *request, struct mill_reply *reply)
{
    int error;
    PCRE2_SIZE offset;
    const char *expression = request->argument ? request->argument : ".+";
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                                     &offset, NULL);
    if (!code) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(error, why, sizeof why);
        if (asprintf(&reply->text, "%s at %zu\n", (char *)why, (size_t)offset) < 0)
            reply->text = NULL;
        return 400;
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(code, NULL);
    size_t length = strlen(request->text), size = 0;
    FILE *out = open_memstream(&reply->text, &size);
    PCRE2_SIZE start = 0;
    while (start <= length &&
           pcre2_match(code, (PCRE2_SPTR)request->text, length, start, 0, match, NULL) > 0) {
        PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(match);
        fprintf(out, "%.*s\n", (int)(bounds[1] - bounds[0]), request->text + bounds[0]);
        start = bounds[1] > bounds[0] ? bounds[1] : bounds[1] + 1;
    }
    fclose(out);
    pcre2_match_data_free(match);
    pcre2_code_free(code);
    return 200;
}
