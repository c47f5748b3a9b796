"""Ruby: gems, Bundler, and what programs require."""

from __future__ import annotations

from imagekit import DIR, Member, Symlink
from needskit import codes, needs, program
from treekit import fs, packages

from layerlens.ecosystems.ruby import code_lines, ecosystem
from layerlens.graph import Needs

LIB = "/usr/local/lib/ruby"
HOME = "/usr/local/bundle"


def spec(name: str, version: str, *requires: str, bindir: str = "bin", platform: str = "ruby") -> bytes:
    lines = "".join(f'    s.add_runtime_dependency(%q<{one}>.freeze, [">= 0"])\n' for one in requires)
    return (
        f"# -*- encoding: utf-8 -*-\n# stub: {name} {version} {platform} lib\n\nGem::Specification.new do |s|\n"
        f'  s.name = "{name}".freeze\n  s.bindir = "{bindir}".freeze\n  s.licenses = ["MIT".freeze]\n'
        f"  if s.respond_to? :add_runtime_dependency then\n{lines}"
        '    s.add_development_dependency(%q<rspec>.freeze, [">= 3"])\n  else\n'
        '    s.add_dependency(%q<rspec>.freeze, [">= 3"])\n  end\nend\n'
    ).encode()


def gem(name: str, version: str, files: dict[str, bytes], *requires: str, **more: str) -> dict[str, Member]:
    return {
        f"{HOME}/specifications/{name}-{version}.gemspec": spec(name, version, *requires, **more),
        **{f"{HOME}/gems/{name}-{version}/{path}": data for path, data in files.items()},
    }


LOCK = b"""GEM
  remote: https://rubygems.org/
  specs:
    minitest (5.0.0)
    puma (6.4.0)
      nio4r (~> 2.0)
    nio4r (2.5.9)
    sinatra (3.1.0)
      rack (~> 2.2)
    rack (2.2.8)

PLATFORMS
  x86_64-linux

DEPENDENCIES
  puma

BUNDLED WITH
   2.4.19
"""
GEMFILE = b"""source "https://rubygems.org"
gem "puma", "~> 6"
gem "sinatra", require: "sinatra/base"
group :test do
  gem "minitest"
end
gem "rubocop", group: :development
"""
FILES: dict[str, Member] = {
    "/usr/local/bin/ruby": program(),
    "/usr/bin/env": program(),
    "/usr/local/bin/bundle": program(
        "#!/usr/bin/env ruby\nrequire 'rubygems'\nload Gem.activate_bin_path('bundler', 'bundle', version)\n"
    ),
    f"{HOME}/bin/puma": program("#!/usr/bin/env ruby\nload Gem.activate_bin_path('puma', 'puma', '>= 0')\n"),
    f"{LIB}/3.3.0/x86_64-linux/rbconfig.rb": b"",
    f"{LIB}/3.3.0/x86_64-linux/enc/encdb.so": b"",
    f"{LIB}/3.3.0/x86_64-linux/enc/utf_16le.so": b"",
    f"{LIB}/3.3.0/x86_64-linux/enc/euc_jp.so": b"",
    f"{LIB}/3.3.0/x86_64-linux/enc/shift_jis.so": b"",
    f"{LIB}/3.3.0/x86_64-linux/psych.so": b"\0rb_require\0psych/syntax_error\0",
    f"{LIB}/3.3.0/psych/syntax_error.rb": b"",
    f"{LIB}/3.3.0/psych.rb": b"require 'psych.so'\n",
    f"{LIB}/3.3.0/yaml.rb": b"require 'psych'\n",
    f"{LIB}/3.3.0/rubygems.rb": b'require_relative "rubygems/version"\n'
    b'autoload :Late, File.join(__dir__, "rubygems/late.rb")\n',
    f"{LIB}/3.3.0/rubygems/version.rb": b"",
    f"{LIB}/3.3.0/rubygems/late.rb": b"",
    f"{LIB}/3.3.0/rubygems/other.rb": b"",
    f"{LIB}/3.3.0/did_you_mean.rb": b"",
    f"{LIB}/3.3.0/set.rb": b"",
    f"{LIB}/3.3.0/unused.rb": b"",
    f"{LIB}/3.3.0/bundler/setup.rb": b"require_relative '../bundler'\n",
    f"{LIB}/3.3.0/bundler.rb": b'autoload :Dsl, File.expand_path("bundler/dsl", __dir__)\n',
    f"{LIB}/3.3.0/bundler/dsl.rb": b"",
    f"{LIB}/gems/3.3.0/specifications/default/bundler-2.4.19.gemspec": spec("bundler", "2.4.19", bindir="exe"),
    f"{LIB}/gems/3.3.0/gems/bundler-2.4.19/exe/bundle": b"require 'bundler'\n",
    **gem("puma", "6.4.0", {"lib/puma.rb": b"require 'set'\n", "bin/puma": b"require 'puma/cli'\n",
                            "lib/puma/cli.rb": b"", "ext/puma/http11.c": b"", "test/test_puma.rb": b""}, "nio4r"),
    **gem("nio4r", "2.5.9", {"lib/nio4r.rb": b""}),
    **gem("nio4r", "9.9.9", {"lib/nio4r.rb": b""}),
    f"{HOME}/extensions/x86_64-linux/3.3.0/nio4r-2.5.9/nio4r_ext.so": b"",
    **gem("sinatra", "3.1.0", {"lib/sinatra/base.rb": b"require 'rack'\n"}, "rack"),
    **gem("rack", "2.2.8", {"lib/rack.rb": b"begin\n  require 'notthere'\nrescue LoadError\nend\n"}),
    **gem("minitest", "5.0.0", {"lib/minitest.rb": b""}),
    **gem("rubocop", "1.0.0", {"lib/rubocop.rb": b""}),
    **gem("stray", "1.0.0", {"lib/stray.rb": b""}),
    "/app/Gemfile": GEMFILE,
    "/app/Gemfile.lock": LOCK,
    "/app/config.ru": b"require_relative 'app'\nrun App\n",
    "/app/app.rb": b"require 'sinatra/base' # and require 'stray'\nrequire 'yaml'\nEncoding::EUC_JP # euc-jp\n"
    b'File.read(File.join(ROOT, "docs", "rules.md"))\n__END__\nrequire "unused"\n',
    "/app/docs/rules.md": b"",
    "/app/docs/other.md": b"",
    "/app/views/index.erb": b"",
    "/app/test/app_test.rb": b"require 'minitest'\n",
    "/app/tmp/pids/": DIR,
}  # fmt: skip


def image(*words: str, more: dict[str, Member] | None = None, env: dict[str, str] | None = None) -> Needs:
    path = f"{HOME}/bin:/usr/local/bin:/usr/bin"
    return needs(
        FILES | (more or {}), cmd=words, workdir="/app", env={"PATH": path, "GEM_HOME": HOME} | (env or {})
    )


def in_gems(found: Needs) -> set[str]:
    start = f"{HOME}/gems/"
    return {path[len(start) :].partition("/")[0] for path in found.kept if path.startswith(start)}


def test_packages() -> None:
    found, diagnostics = packages(ecosystem, fs(FILES))
    by_name = {(p.name, p.version): p for p in found}
    assert ("bundler", "2.4.19") not in by_name  # a default gem is ruby's own
    puma = by_name["puma", "6.4.0"]
    assert (puma.roots, puma.requires, puma.license) == ((f"{HOME}/gems/puma-6.4.0",), ("nio4r",), "MIT")
    assert by_name["nio4r", "2.5.9"].roots[1] == f"{HOME}/extensions/x86_64-linux/3.3.0/nio4r-2.5.9"
    assert not diagnostics


def test_broken_specifications() -> None:
    broken = {"/g/specifications/a-1.gemspec": b"\xff\0", "/g/specifications/b-1.gemspec": b'  s.name = "z"'}
    found, diagnostics = packages(ecosystem, fs(broken))
    assert not found and [d.code for d in diagnostics] == ["broken-metadata", "broken-metadata"]


def test_bundle_exec() -> None:
    found = image("bundle", "exec", "puma", "-C", "config/puma.rb")
    assert in_gems(found) == {"puma-6.4.0", "nio4r-2.5.9", "sinatra-3.1.0", "rack-2.2.8"}
    assert {
        *("/app/Gemfile", "/app/Gemfile.lock", "/app/config.ru", "/app/app.rb", "/app/views/index.erb"),
        *("/app/docs/rules.md", "/app/tmp/pids", f"{HOME}/specifications/minitest-5.0.0.gemspec"),
        *(f"{HOME}/gems/puma-6.4.0/bin/puma", f"{HOME}/gems/puma-6.4.0/lib/puma/cli.rb"),
        *(f"{HOME}/extensions/x86_64-linux/3.3.0/nio4r-2.5.9/nio4r_ext.so", f"{LIB}/3.3.0/set.rb"),
        *(f"{LIB}/3.3.0/bundler/dsl.rb", f"{LIB}/gems/3.3.0/gems/bundler-2.4.19/exe/bundle"),
        *(
            f"{LIB}/3.3.0/rubygems/version.rb",
            f"{LIB}/3.3.0/rubygems/late.rb",
            f"{LIB}/3.3.0/did_you_mean.rb",
        ),
        *(f"{LIB}/3.3.0/psych/syntax_error.rb", f"{LIB}/3.3.0/x86_64-linux/psych.so"),
        *(f"{LIB}/3.3.0/x86_64-linux/enc/{name}.so" for name in ("encdb", "utf_16le", "euc_jp")),
    } <= found.kept.keys()
    assert (
        not {
            *("/app/docs/other.md", "/app/test/app_test.rb", f"{HOME}/gems/puma-6.4.0/ext/puma/http11.c"),
            *(
                f"{HOME}/gems/puma-6.4.0/test/test_puma.rb",
                f"{LIB}/3.3.0/unused.rb",
                f"{LIB}/3.3.0/rubygems/other.rb",
            ),
            f"{LIB}/3.3.0/x86_64-linux/enc/shift_jis.so",
        }
        & found.kept.keys()
    )
    assert found.kept[f"{HOME}/gems/nio4r-2.5.9/lib/nio4r.rb"].evidence == "nio4r 2.5.9 is kept whole"


def test_groups_that_are_excluded_or_wanted() -> None:
    without = image("bundle", "exec", "puma", env={"BUNDLE_WITHOUT": "development:test"})
    assert f"{HOME}/specifications/minitest-5.0.0.gemspec" not in without.kept
    config = {"/app/.bundle/config": b'---\nBUNDLE_WITHOUT: "test"\n'}
    assert (
        f"{HOME}/specifications/minitest-5.0.0.gemspec"
        not in image("bundle", "exec", "puma", more=config).kept
    )
    assert "minitest-5.0.0" in in_gems(image("bundle", "exec", "puma", env={"RACK_ENV": "test"}))


def test_requires_of_scripts_and_lines() -> None:
    assert f"{LIB}/3.3.0/set.rb" in image("ruby", "-rset", "-e", "1").kept
    assert in_gems(image("ruby", "-e", "require 'nio4r'")) == {"nio4r-9.9.9"}
    lib = {"/lib2/mine.rb": b"load 'part.rb'\n", "/lib2/part.rb": b""}
    assert {"/lib2/mine.rb", "/lib2/part.rb"} <= image(
        "ruby", "-I", "/lib2", "-e", "require 'mine'", more=lib
    ).kept.keys()
    assert "script-not-found" in codes(image("ruby", "gone.rb"))


def test_gems_of_vendor_bundle() -> None:
    members: dict[str, Member] = {
        "/app/vendor/bundle/ruby/3.3.0/specifications/puma-6.4.0.gemspec": spec("puma", "6.4.0"),
        "/app/vendor/bundle/ruby/3.3.0/gems/puma-6.4.0/lib/puma.rb": b"",
        "/app/vendor/bundle/ruby/3.3.0/bin/puma": Symlink(target="/usr/local/bundle/bin/puma"),
        "/app/.bundle/config": b'---\nBUNDLE_PATH: "vendor/bundle"\n',
    }
    kept = image("bundle", "exec", "puma", more=members).kept
    assert "/app/vendor/bundle/ruby/3.3.0/gems/puma-6.4.0/lib/puma.rb" in kept


def test_lines_of_code() -> None:
    text = "a\n# b\n=begin\nc\n=end\n  # d\ne # f\n__END__\ng\n"
    assert list(code_lines(text)) == [(1, "a"), (7, "e # f")]
