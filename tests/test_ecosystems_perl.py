"""Perl: modules by ``@INC``; the oracle is perl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from imagekit import Member, Symlink
from needskit import codes, needs, program
from treekit import CONFIG, fs_of_folders

from layerlens.attribution import Attribution
from layerlens.ecosystems.perl import code_lines
from layerlens.filesystem import Filesystem
from layerlens.graph import Needs

LIB = "/usr/local/lib/perl5/5.38.0"
FILES: dict[str, Member] = {
    "/usr/local/bin/perl": program(),
    f"{LIB}/strict.pm": b"",
    f"{LIB}/x86_64-linux-gnu/Config.pm": b"",
    f"{LIB}/POSIX.pm": b"use Fcntl; require XSLoader;",
    f"{LIB}/Fcntl.pm": b"",
    f"{LIB}/XSLoader.pm": b"",
    f"{LIB}/x86_64-linux-gnu/auto/POSIX/POSIX.so": b"",
    f"{LIB}/x86_64-linux-gnu/auto/POSIX/autosplit.ix": b"",
    f"{LIB}/x86_64-linux-gnu/auto/Fcntl/Fcntl.so": b"",
    f"{LIB}/File/Glob.pm": b"",
    f"{LIB}/Hidden.pm": b"",
    f"{LIB}/Data.pm": b"",
    f"{LIB}/unicore/Name.pl": b"",
    "/usr/local/lib/perl5/site_perl/5.38.0/My/Base.pm": b"",
    "/app/lib/My/App.pm": b"package My::App; use parent -norequire, 'Nothing'; use base qw(My::Base); 1;",
    "/app/lib/My/Late.pm": b"",
    "/app/bin/run": program(
        '#!/usr/local/bin/perl -w\nuse strict;\nuse FindBin; use lib "$FindBin::Bin/../lib";\nuse My::App;\n'
        "# use Hidden;\n\n=pod\n\nuse Hidden;\n\n=cut\n\nmy @a = glob('*');\neval { require POSIX; };\n"
        "my $c = 'My::Late'; eval \"require $c\";\n__END__\nuse Hidden;\n"
    ),
}


def test_modules_of_a_script() -> None:
    found = needs(FILES, cmd=["/app/bin/run"])
    assert {
        *(f"{LIB}/strict.pm", "/app/lib/My/App.pm", "/usr/local/lib/perl5/site_perl/5.38.0/My/Base.pm"),
        *(f"{LIB}/POSIX.pm", f"{LIB}/x86_64-linux-gnu/auto/POSIX/POSIX.so", f"{LIB}/File/Glob.pm"),
        *(f"{LIB}/x86_64-linux-gnu/auto/POSIX/autosplit.ix", f"{LIB}/x86_64-linux-gnu/auto/Fcntl/Fcntl.so"),
        "/app/lib/My/Late.pm",
    } <= found.kept.keys()
    assert not {f"{LIB}/Hidden.pm", f"{LIB}/unicore/Name.pl", f"{LIB}/Data.pm"} & found.kept.keys()
    assert found.kept[f"{LIB}/strict.pm"].evidence == "line 2: use strict"


def test_options() -> None:
    found = needs(FILES, cmd=["perl", "-MData", "-wne", "print if /\\p{Lu}/", "x"])
    assert {f"{LIB}/Data.pm", f"{LIB}/unicore/Name.pl"} <= found.kept.keys()
    env = {"PERL5LIB": "/app/lib"}
    assert "/app/lib/My/App.pm" in needs(FILES, cmd=["perl", "-e", "use My::App"], env=env).kept
    assert "script-not-found" in codes(needs(FILES, cmd=["perl", "gone.pl"]))


def test_lines_of_code() -> None:
    assert list(code_lines("a\n=head1 x\nb\n=cut\nc\n # d\n__DATA__\ne")) == ["a", "", "", "", "c", ""]


@cache
def host() -> Filesystem:
    """The host's perl as an image."""
    listed = subprocess.run(
        ["perl", "-e", 'print join "\n", @INC'], capture_output=True, text=True, check=True
    )
    folders = sorted(
        {str(Path(folder).resolve()) for folder in listed.stdout.split() if Path(folder).is_dir()}
    )
    outer = [
        one for one in folders if not any(one != other and one.startswith(f"{other}/") for other in folders)
    ]
    links = {
        folder: Symlink(target=str(Path(folder).readlink()))
        for folder in listed.stdout.split()
        if Path(folder).is_symlink()
    }
    return fs_of_folders({one: one for one in outer}, {"/usr/bin/perl": program(), **links})


@pytest.mark.skipif(shutil.which("perl") is None, reason="the oracle is perl itself")
@pytest.mark.parametrize(
    "code",
    [
        "use strict; use warnings; use File::Find; use POSIX qw(floor); use Encode;",
        "use Getopt::Long; use Data::Dumper; use File::Temp; use Time::HiRes;",
        "use IO::Socket::INET; use Socket; use JSON::PP;",
        "use Text::Wrap; use File::Basename; use Cwd; my @a = glob('/*');",
        'open my $f, "<:encoding(UTF-8)", "/dev/null";',
    ],
)
def test_what_perl_loads_is_kept(code: str) -> None:
    script = f"{code} print join qq(\\n), values %INC;"
    loaded = subprocess.run(["perl", "-e", script], capture_output=True, text=True, check=True).stdout.split()
    config = replace(CONFIG, cmd=("perl", "-e", code))
    found = Needs(Attribution(host(), []), config)
    kept = {found.fs.follow(path) for path in found.kept}
    missing = [path for path in loaded if found.fs.follow(path) not in kept]
    assert loaded
    assert missing == []
