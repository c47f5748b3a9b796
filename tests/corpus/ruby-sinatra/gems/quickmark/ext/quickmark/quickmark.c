#include <errno.h>
#include <qrencode.h>
#include <ruby.h>

/* The modules of a text's code: an array of strings of 0 and 1, a string a row. */
static VALUE matrix(VALUE self, VALUE text)
{
    (void)self;
    QRcode *code = QRcode_encodeString8bit(StringValueCStr(text), 0, QR_ECLEVEL_M);
    if (!code)
        rb_sys_fail("QRcode_encodeString8bit");
    VALUE rows = rb_ary_new_capa(code->width);
    for (int y = 0; y < code->width; y++) {
        VALUE row = rb_str_buf_new(code->width);
        for (int x = 0; x < code->width; x++)
            rb_str_cat(row, code->data[y * code->width + x] & 1 ? "1" : "0", 1);
        rb_ary_push(rows, row);
    }
    QRcode_free(code);
    return rows;
}

void Init_quickmark(void)
{
    rb_define_singleton_method(rb_define_module("Quickmark"), "matrix", matrix, 1);
}
