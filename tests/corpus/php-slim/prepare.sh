# Composer's "artifact" repository: each library as a zip, out of Debian's package of it.
mkdir downloads packages
cd downloads
apt-get -qq download php-codesniffer php-monolog php-nikic-fast-route php-parsedown php-pimple php-psr-container \
    php-psr-http-message php-psr-log php-slim php-twig
for package in *.deb; do
    dpkg-deb -x "$package" "${package%%_*}"
done
cd ..
python3 - <<'PYTHON'
import json, subprocess, zipfile
from pathlib import Path

# Debian's package, Composer's name, folder below /usr/share/php, what it loads, what it requires
LIBRARIES = [
    ("php-slim", "slim/slim", "Slim", {"psr-4": {"Slim\\": "Slim/"}},
     {"pimple/pimple": "^3.0", "psr/container": "^1.0", "psr/http-message": "^1.0", "nikic/fast-route": "^1.0"}),
    ("php-pimple", "pimple/pimple", "Pimple", {"psr-0": {"Pimple": ""}}, {"psr/container": "^1.1"}),
    ("php-nikic-fast-route", "nikic/fast-route", "FastRoute",
     {"psr-4": {"FastRoute\\": "FastRoute/"}, "files": ["FastRoute/functions.php"]}, {}),
    ("php-psr-container", "psr/container", "Psr/Container", {"psr-4": {"Psr\\Container\\": "Psr/Container/"}}, {}),
    ("php-psr-http-message", "psr/http-message", "Psr/Http/Message",
     {"psr-4": {"Psr\\Http\\Message\\": "Psr/Http/Message/"}}, {}),
    ("php-psr-log", "psr/log", "Psr/Log", {"psr-4": {"Psr\\Log\\": "Psr/Log/"}}, {}),
    ("php-twig", "twig/twig", "Twig", {"psr-4": {"Twig\\": "Twig/"}}, {"ext-ctype": "*", "ext-mbstring": "*"}),
    ("php-monolog", "monolog/monolog", "Monolog", {"psr-4": {"Monolog\\": "Monolog/"}}, {"psr/log": "^1.0.1"}),
    ("php-parsedown", "erusev/parsedown", "Parsedown", {"classmap": ["Parsedown/Parsedown.php"]}, {"ext-mbstring": "*"}),
    ("php-codesniffer", "squizlabs/php_codesniffer", "PHP", {"classmap": ["PHP/"]}, {}),
]

def add(target: zipfile.ZipFile, name: str, content: str | bytes) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    target.writestr(entry, content, zipfile.ZIP_DEFLATED)


for package, name, folder, autoload, require in LIBRARIES:
    [archive] = Path("downloads").glob(f"{package}_*.deb")
    version = subprocess.check_output(["dpkg-deb", "-f", archive, "Version"], text=True).strip()
    version = version.rpartition(":")[2].partition("-")[0].partition("+")[0]
    top = Path("downloads", package, "usr/share/php")
    about = {"name": name, "version": version, "type": "library", "require": require, "autoload": autoload}
    with zipfile.ZipFile(f"packages/{name.replace('/', '-')}-{version}.zip", "w") as target:
        add(target, "composer.json", json.dumps(about, indent=4))
        for file in sorted(top.joinpath(folder).rglob("*")):
            if file.is_file() and file.name != "autoload.php":
                add(target, str(file.relative_to(top)), file.read_bytes())
PYTHON
rm -r downloads
