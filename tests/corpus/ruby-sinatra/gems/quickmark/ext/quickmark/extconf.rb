# frozen_string_literal: true

require "mkmf"

abort "libqrencode is missing" unless have_header("qrencode.h") && have_library("qrencode", "QRcode_encodeString8bit")
create_makefile("quickmark/quickmark")
