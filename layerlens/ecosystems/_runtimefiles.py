"""What libraries open at run time without a NEEDED: modules, configuration and data, as tables with their sources.

A path may start with ``{folder}``, the folder of the library itself: modules lie beside the library that loads them.
A path that ends in ``/`` is a directory with everything in it; ``*`` is a wildcard within one component. A name
without a slash is a library, looked for as dlopen(3) does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Taken:
    """Paths that come with a library or a function."""

    paths: tuple[str, ...]
    kind: str
    """``plugin``, ``data`` or ``config``, as an edge's."""
    source: str
    """What says so; shown as the edge's evidence."""


def _rows(text: str) -> dict[str, tuple[Taken, ...]]:
    """Lines ``name… | kind | path… | source``, by each name."""
    found: dict[str, list[Taken]] = {}
    for line in text.strip().replace("\\\n", "").splitlines():
        names, kind, paths, source = (" ".join(part.split()) for part in line.split("|"))
        for name in names.split():
            found.setdefault(name, []).append(Taken(tuple(paths.split()), kind, source))
    return {name: tuple(rows) for name, rows in found.items()}


BY_LIBRARY = _rows(r"""
libc | config | /etc/nsswitch.conf | nsswitch.conf(5)
libc | config | /etc/host.conf | host.conf(5)
libc | config | /etc/gai.conf | gai.conf(5)
libc | data | /etc/localtime | tzset(3), without TZ
libc | data | {folder}/gconv/gconv-modules.cache | iconvconfig(8)
libssl libnss3 libmbedtls libwolfssl | data | /etc/ssl/certs/ /etc/pki/tls/certs/ | \
    update-ca-certificates(8), update-ca-trust(8)
libssl libmbedtls | data | /etc/ssl/cert.pem /etc/pki/tls/cert.pem | SSL_CTX_set_default_verify_paths(3)
libgnutls | data | /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt | gnutls: configure \
    --with-default-trust-store-file
libgnutls | config | /etc/gnutls/config | GnuTLS manual, "System-wide configuration"
libp11-kit | config | /etc/pkcs11/ /usr/share/p11-kit/modules/ | pkcs11.conf(5)
libp11-kit | plugin | {folder}/pkcs11/*.so | pkcs11.conf(5), module
libnss3 | plugin | {folder}/libsoftokn3.so {folder}/libfreebl*.so {folder}/libnssckbi.so {folder}/nss/*.so \
    | NSS: lib/util/secload.c, lib/pk11wrap/pk11load.c
libnss3 libsoftokn3 libfreebl3 | data | {folder}/lib*.chk {folder}/nss/*.chk | NSS: lib/freebl/shvfy.c
libgcrypt | config | /etc/gcrypt/ | Libgcrypt manual, "Configuration files"
libkrb5 | config | /etc/krb5.conf /etc/krb5.conf.d/ | krb5.conf(5)
libkrb5 | plugin | {folder}/krb5/plugins/*/*.so | krb5.conf(5), plugins
libgssapi_krb5 | config | /etc/gss/mech /etc/gss/mech.d/ | MIT Kerberos, "GSSAPI mechanism modules"
libldap libldap_r | config | /etc/ldap/ldap.conf /etc/openldap/ldap.conf | ldap.conf(5)
libsasl2 | plugin | {folder}/sasl2/lib[!ls]*.so* {folder}/sasl2/lib[ls][!adq]*.so* | Cyrus SASL, \
    "Plugin programming": SASL_PATH; without the stores of passwords (sasldb, ldapdb, sql)
libpam | config | /etc/pam.d/ /etc/pam.conf /etc/security/ /etc/login.defs | pam.conf(5)
libpam | plugin | {folder}/security/*.so /lib/security/*.so /usr/lib/security/*.so \
    /usr/lib64/security/*.so | pam.conf(5), module-path
libselinux | config | /etc/selinux/config | selinux_config(5)
libmagic | data | /etc/magic /usr/share/misc/magic.mgc /usr/share/misc/magic /usr/share/file/magic.mgc | \
    magic(5), libmagic(3)
libtinfo libtinfow libncurses libncursesw | data | /etc/terminfo/ /lib/terminfo/ | terminfo(5); the common \
    terminals of Debian's ncurses-base
libtinfo libtinfow libncurses libncursesw | data | /usr/share/terminfo/[adlstvx]/ansi \
    /usr/share/terminfo/[adlstvx]/dumb /usr/share/terminfo/[adlstvx]/linux \
    /usr/share/terminfo/[adlstvx]/screen* /usr/share/terminfo/[adlstvx]/tmux* \
    /usr/share/terminfo/[adlstvx]/vt100 /usr/share/terminfo/[adlstvx]/vt220 \
    /usr/share/terminfo/[adlstvx]/xterm /usr/share/terminfo/[adlstvx]/xterm-256color \
    /usr/share/terminfo/[adlstvx]/xterm-color | terminfo(5); the common terminals of Debian's ncurses-base
libreadline | config | /etc/inputrc | readline(3)
libfontconfig | config | /etc/fonts/ /usr/share/fontconfig/ | fonts-conf(5)
libgdk_pixbuf | plugin | {folder}/gdk-pixbuf-2.0/2.10.0/loaders.cache \
    {folder}/gdk-pixbuf-2.0/2.10.0/loaders/*.so | gdk-pixbuf-query-loaders(1)
libgio | plugin | {folder}/gio/modules/*.so {folder}/gio/modules/giomodule.cache | gio-querymodules(1)
libgio | data | /usr/share/glib-2.0/schemas/gschemas.compiled | glib-compile-schemas(1)
libgio libgdk_pixbuf | data | /usr/share/mime/mime.cache | shared-mime-info specification 0.22, 2.3
libpango | config | /etc/pango/ | pango documentation, pangorc
libgtk | plugin | {folder}/gtk-[234].0/*/immodules.cache {folder}/gtk-[234].0/*/immodules/*.so | \
    gtk-query-immodules-3.0(1)
libgs | data | /usr/share/ghostscript/ /var/lib/ghostscript/ /usr/share/color/icc/ghostscript/ \
    /usr/share/poppler/cMap/ | Ghostscript, "How Ghostscript finds files"
libMagickCore | config | /etc/ImageMagick-[67]/ /usr/share/ImageMagick-[67]/ | ImageMagick, "Resources"
libMagickCore | plugin | {folder}/ImageMagick-*/modules-*/*/*.so {folder}/ImageMagick-*/modules-*/*/*.la \
    {folder}/ImageMagick-*/config-*/*.xml | ImageMagick, "Resources": MAGICK_CODER_MODULE_PATH
libvips | plugin | {folder}/vips-modules-*/*.so | libvips: vips_init(3), module loading
libheif | plugin | {folder}/libheif/plugins/*.so | libheif: README, "Codec plugins"
libpoppler | data | /usr/share/poppler/ | poppler-data: README
libX11 | data | /usr/share/X11/XErrorDB | XGetErrorDatabaseText(3)
libxkbcommon | data | /usr/share/X11/xkb/ | xkeyboard-config(7)
libasound | config | /usr/share/alsa/ /etc/alsa/ /etc/asound.conf | ALSA: asoundrc
libasound | plugin | {folder}/alsa-lib/*.so | ALSA: asoundrc
libproj | data | /usr/share/proj/ | PROJ, "Resource files"
libgdal | data | /usr/share/gdal/ | GDAL configuration: GDAL_DATA
libgdal | plugin | {folder}/gdalplugins/*.so | GDAL configuration: GDAL_DRIVER_PATH
libtesseract | data | /usr/share/tesseract-ocr/ /usr/share/tessdata/ | tesseract(1): TESSDATA_PREFIX
libmariadb libmysqlclient | config | /etc/mysql/ /etc/my.cnf /etc/my.cnf.d/ | MariaDB: option files
libmariadb | plugin | {folder}/libmariadb3/plugin/*.so {folder}/mariadb/plugin/*.so | MariaDB Connector/C: \
    plugin-dir
libmysqlclient | plugin | {folder}/mysql/plugin/*.so | MySQL C API: MYSQL_PLUGIN_DIR
libodbc | config | /etc/odbc.ini /etc/odbcinst.ini /etc/ODBCDataSources/ | odbcinst.ini(5)
libodbc | plugin | {folder}/odbc/*.so | odbcinst.ini(5)
libsybdb libct | config | /etc/freetds/ /usr/share/freetds/ | freetds.conf(5)
libenchant-2 | plugin | {folder}/enchant-2/*.so | enchant(5)
libenchant-2 | data | /usr/share/enchant-2/ /usr/share/hunspell/ | enchant(5)
libhunspell | data | /usr/share/hunspell/ /usr/share/myspell/ | hunspell(1)
libaspell | data | {folder}/aspell/ /usr/lib/aspell/ /usr/share/aspell/ /var/lib/aspell/ | aspell(1)
libnetsnmp | data | /usr/share/snmp/mibs/ /etc/snmp/snmp.conf | snmp.conf(5)
libunbound | data | /etc/unbound/root.key /usr/share/dns/root.key | unbound-anchor(8)
libcups | config | /etc/cups/client.conf | client.conf(5)
libtcl | data | /usr/share/tcltk/ {folder}/tcl[89].[0-9]/ {folder}/tcltk/ | tclvars(3), tcl_library
libtk | data | {folder}/tk[89].[0-9]/ | tkvars(3), tk_library
libguile | data | /usr/share/guile/ {folder}/guile/ | Guile manual, "Load paths"
libgirepository | data | {folder}/girepository-1.0/ | GObject introspection: GI_TYPELIB_PATH
libgstreamer | plugin | {folder}/gstreamer-1.0/*.so {folder}/gstreamer1.0/gstreamer-1.0/gst-plugin-scanner \
    | gst-launch-1.0(1): GST_PLUGIN_PATH
libxml2 | config | /etc/xml/catalog | xmlcatalog(1)
libGeoIP | data | /usr/share/GeoIP/ | geoiplookup(1)
libmecab | data | {folder}/mecab/ /etc/mecabrc /var/lib/mecab/ | mecab(1)
libicuuc | data | /usr/share/icu/*/icudt*.dat | ICU user guide, "ICU data": packaged data files
""")
"""By the beginning of a SONAME, up to ``.so``, ``-2.`` or a digit: see :func:`stem`."""

BY_IMPORT = _rows(r"""
getservbyname getservbyname_r getservbyport getservbyport_r getservent getaddrinfo getnameinfo | data | \
    /etc/services | services(5)
getprotobyname getprotobyname_r getprotobynumber getprotobynumber_r getprotoent | data | /etc/protocols | \
    protocols(5)
getrpcbyname getrpcbynumber | data | /etc/rpc | rpc(5)
getnetbyname getnetbyaddr | data | /etc/networks | networks(5)
getspnam getspnam_r getspent | data | /etc/shadow | shadow(5)
getusershell | data | /etc/shells | shells(5)
setlocale newlocale _ZNSt6localeC1EPKc _ZNSt6localeC2EPKc | data | /usr/lib/locale/C.utf8/ \
    /usr/lib/locale/C.UTF-8/ | setlocale(3): C.UTF-8, which needs no choice of a language
tzset tzalloc | data | /usr/share/zoneinfo/ | tzset(3): any zone may be set at run time
XOpenIM XSetLocaleModifiers XCreateFontSet | data | /usr/share/X11/locale/ | XOpenIM(3), XCreateFontSet(3)
FcFontMatch FcFontSort FcFontList | data | /usr/share/fonts/ /usr/local/share/fonts/ | FcFontMatch(3)
ENGINE_by_id ENGINE_load_builtin_engines | plugin | {openssl}/engines-*/*.so | ENGINE_by_id(3)
OSSL_PROVIDER_load OSSL_PROVIDER_try_load | plugin | {openssl}/ossl-modules/*.so | OSSL_PROVIDER-legacy(7)
pthread_exit pthread_cancel backtrace | plugin | libgcc_s.so.1 | glibc: misc/unwind-link.c, which the C library \
    opens to unwind a stack
sasl_server_init | plugin | /usr/lib/*/sasl2/lib[ls][adq]*.so* /usr/lib/sasl2/lib[ls][adq]*.so* \
    /usr/lib64/sasl2/lib[ls][adq]*.so* | Cyrus SASL, "Auxiliary property plugins": only servers ask them
magic_load | data | /usr/share/misc/magic.mgc /usr/lib/file/magic.mgc | libmagic(3)
""")
"""By a symbol that another object defines. ``{openssl}`` is the folder of the image's libcrypto."""

DATA_FOLDERS: dict[str, tuple[str, tuple[str, ...]]] = {
    # Directories that programs name and read by names that come from outside, and subdirectories that repeat them.
    "/usr/share/zoneinfo": ("time zones are loaded by name (tzfile(5))", ("posix", "right")),
    "/etc/ssl/certs": ("the trusted authorities (update-ca-certificates(8))", ()),
    "/usr/lib/ssl/certs": ("the trusted authorities (openssl: OPENSSLDIR)", ()),
    "/etc/pki/tls/certs": ("the trusted authorities (update-ca-trust(8))", ()),
    "/etc/fonts": ("fonts-conf(5)", ()),
    "/usr/share/X11/locale": ("XSetLocale(3)", ()),
}

WITH_ICU = frozenset(("node", "nodejs"))
"""Programs that take time zones and locales from ICU's data inside of them (Node documentation, intl)."""
FOR_ICU = frozenset(("tzset", "tzalloc", "setlocale", "newlocale"))
"""Functions whose data they do without: what they tell the C library to use, nothing of theirs asks it for."""
FOR_CALLERS = {"libstdc++": frozenset(("newlocale", "setlocale"))}
"""Libraries that call a function with what their callers name: std::locale (C++ standard, locale.cons)."""

STARTS_SHELL = frozenset(("system", "popen", "wordexp"))
"""Functions of the C library that run ``/bin/sh -c`` (system(3), popen(3), wordexp(3))."""

_STARTS_PROGRAMS = """
    execl execle execlp execv execve execveat execvp execvpe fexecve posix_spawn posix_spawnp g_spawn_async
    g_spawn_sync g_spawn_command_line_async g_spawn_command_line_sync g_subprocess_new g_subprocess_newv
    apr_proc_create pspawn uv_spawn
"""
STARTS_PROGRAMS = STARTS_SHELL | frozenset(_STARTS_PROGRAMS.split())
"""Functions that start a program whose path is given (exec(3), posix_spawn(3), GLib, APR, libuv)."""

_LOADS_OBJECTS = """
    dlopen dlmopen __libc_dlopen_mode g_module_open g_module_open_full lt_dlopen lt_dlopenext lt_dlforeachfile
    apr_dso_load uv_dlopen
"""
LOADS_OBJECTS = frozenset(_LOADS_OBJECTS.split())
"""Functions that load an object whose name is given (dlopen(3), GModule, libltdl, APR, libuv)."""

NSS_BUILT_IN = ("GLIBC_2.34", frozenset(("files", "dns")))
"""The glibc from which on these services are part of libc.so.6 (glibc NEWS, 2.34)."""

NSS_DEFAULT = ("files", "dns")
"""What is asked where nsswitch.conf is not there (glibc ``nss/nss_database.c``, nsswitch.conf(5))."""

_WEB_CHARSETS = """
    BIG5 BIG5HKSCS CP932 EUC-JP EUC-JP-MS EUC-KR EUC-CN GBK GB18030 GBGBK IBM866 ISO-2022-JP ISO-2022-KR
    ISO8859-1 ISO8859-2 ISO8859-3 ISO8859-4 ISO8859-5 ISO8859-6 ISO8859-7 ISO8859-8 ISO8859-10 ISO8859-13
    ISO8859-14 ISO8859-15 ISO8859-16 KOI8-R KOI8-U MACINTOSH MAC-CYRILLIC TIS-620 SJIS UHC CP874 CP1250 CP1251
    CP1252 CP1253 CP1254 CP1255 CP1256 CP1257 CP1258 UTF-16 UTF-32 UTF-7 UNICODE libJIS libJISX0213 libGB
    libKSC libCNS
"""
WEB_CHARSETS = frozenset(_WEB_CHARSETS.split())
"""The converters (files of glibc's gconv folder) for the encodings of the web (WHATWG Encoding Standard, 4.2), the
Unicode forms, and the libraries that those for Chinese, Japanese and Korean share."""

LOCALE_CONVERTERS = frozenset(("libidn2", "libunistring", "libpsl", "libstdc++", "bash", "libreadline"))
"""What converts only between Unicode and the encoding of the locale, for which UTF-8 and ASCII need no module
(libidn2 manual, "idn2_to_ascii_lz"; libunistring manual, ``uniconv.h``; libpsl,
``psl_str_to_utf8lower``; bash, ``lib/sh/unicode.c``; libstdc++ manual,
``codecvt``: the encodings are the caller's)."""


def stem(soname: str) -> str:
    """A SONAME without versions: ``libgio-2.0.so.0`` → ``libgio``, ``libMagickCore-6.Q16.so`` → ``libMagickCore``."""
    name = soname.partition(".so")[0]
    if name in BY_LIBRARY:
        return name
    shorter = name.rstrip("0123456789.")
    if shorter in BY_LIBRARY:
        return shorter
    return name.partition("-")[0]
