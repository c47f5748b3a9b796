"""Java runtimes, archives and command lines; a runtime of the machine is the oracle where it has one."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import needskit
import pytest
import treekit
from elfkit import elf
from imagekit import DIR, File, Member, Symlink

from layerlens.ecosystems._java_archives import BrokenArchive, open_archive, parse_manifest
from layerlens.ecosystems.java import ecosystem
from layerlens.graph import Needs
from layerlens.model import Package

JAVA = shutil.which("java")

HOME = "/opt/jdk-17"
LAUNCHER = File(data=elf({".text": b""}), mode=0o755)
RUNTIME: dict[str, Member] = {
    f"{HOME}/release": b'IMPLEMENTOR="Debian"\nJAVA_VERSION="17.0.9"\nJAVA_RUNTIME_VERSION="17.0.9+9"\n',
    f"{HOME}/bin/java": LAUNCHER,
    f"{HOME}/bin/javac": LAUNCHER,
    f"{HOME}/bin/keytool": LAUNCHER,
    f"{HOME}/lib/modules": b"\xca\xfe",
    f"{HOME}/lib/jvm.cfg": b"-server KNOWN\n",
    f"{HOME}/lib/libnet.so": b"",
    f"{HOME}/lib/libjdwp.so": b"",
    f"{HOME}/lib/libsaproc.so": b"",
    f"{HOME}/lib/libawt_xawt.so": b"",
    f"{HOME}/lib/jrt-fs.jar": b"",
    f"{HOME}/lib/src.zip": b"PK",
    f"{HOME}/lib/ct.sym": b"PK",
    f"{HOME}/lib/server/libjvm.so": b"",
    f"{HOME}/lib/server/classes.jsa": b"",
    f"{HOME}/lib/server/classes_nocoops.jsa": b"",
    f"{HOME}/lib/security/cacerts": Symlink(target="/etc/ssl/certs/java/cacerts"),
    "/etc/ssl/certs/java/cacerts": b"jks",
    f"{HOME}/conf": Symlink(target="/etc/java-17"),
    "/etc/java-17/net.properties": b"",
    "/etc/java-17/security/java.security": b"",
    f"{HOME}/jmods/java.base.jmod": b"JM",
    f"{HOME}/include/jni.h": b"",
    f"{HOME}/legal/java.base/LICENSE": b"",
}
KEPT_RUNTIME = {
    *(
        f"{HOME}/{name}"
        for name in ("bin/java", "release", "lib/modules", "lib/jvm.cfg", "lib/libnet.so", "conf")
    ),
    *(f"{HOME}/lib/{name}" for name in ("server/libjvm.so", "server/classes.jsa", "security/cacerts")),
    *("/etc/ssl/certs/java/cacerts", "/etc/java-17/net.properties", "/etc/java-17/security/java.security"),
}


def jar(members: Mapping[str, bytes], manifest: str = "") -> bytes:
    """An archive from literals."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        if manifest:
            archive.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\r\n{manifest}\r\n")
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def pom(group: str, artifact: str, version: str) -> dict[str, bytes]:
    """The properties file that Maven puts into an archive."""
    text = f"#Created by Maven\ngroupId={group}\nartifactId={artifact}\nversion={version}\n"
    return {f"META-INF/maven/{group}/{artifact}/pom.properties": text.encode()}


def needs(members: Mapping[str, Member], *argv: str, env: Mapping[str, str] | None = None) -> Needs:
    """What an image needs that runs ``argv`` in /app beside the runtime."""
    path = f"{HOME}/bin:/usr/bin:/bin"
    return needskit.needs(
        {**RUNTIME, "/app/": DIR, **members},
        entrypoint=argv,
        env={"PATH": path, **(env or {})},
        workdir="/app",
    )


def extra(members: Mapping[str, Member], *argv: str, env: Mapping[str, str] | None = None) -> set[str]:
    """The files that are kept besides the runtime."""
    kept = {
        path for path in needskit.kept_files(needs(members, *argv, env=env)) if not path.endswith("/conf")
    }
    return kept - KEPT_RUNTIME


def found(members: Mapping[str, Member]) -> list[Package]:
    packages, _ = treekit.packages(ecosystem, treekit.fs(members))
    return packages


def test_a_runtime_owns_its_home_and_keeps_what_the_jvm_reads() -> None:
    packages = found(RUNTIME)
    assert [(p.name, p.version, p.roots) for p in packages] == [("jdk", "17.0.9+9", (HOME,))]
    image = needs({"/app/a.jar": jar({})}, "java", "-jar", "a.jar")
    assert {path for path in image.kept if path.startswith(HOME) and not image.fs.is_dir(path)} == {
        path for path in KEPT_RUNTIME if path.startswith(HOME) and not path.endswith("/conf")
    }
    assert set(image.kept) >= KEPT_RUNTIME


@pytest.mark.parametrize(
    ("option", "env", "also"),
    [
        ("-XX:-UseCompressedOops", {}, "server/classes_nocoops.jsa"),
        ("-Xmx40g", {}, "server/classes_nocoops.jsa"),
        ("-agentlib:jdwp=transport=dt_socket,server=y", {}, "libjdwp.so"),
        ("-Djava.awt.headless=false", {}, "libawt_xawt.so"),
        ("-Dx=y", {"DISPLAY": ":0"}, "libawt_xawt.so"),
        ("-Dx=y", {"JAVA_TOOL_OPTIONS": "-agentlib:jdwp=transport=dt_socket"}, "libjdwp.so"),
    ],
)
def test_options_ask_for_more_of_the_runtime(option: str, env: dict[str, str], also: str) -> None:
    image: dict[str, Member] = {"/app/a.jar": jar({})}
    assert extra(image, "java", option, "-jar", "a.jar", env=env) == {"/app/a.jar", f"{HOME}/lib/{also}"}


def test_a_runtime_from_before_modules() -> None:
    home = "/usr/lib/jvm/java-8"
    image = needskit.needs(
        {
            f"{home}/bin/java": LAUNCHER,
            f"{home}/lib/tools.jar": b"",
            f"{home}/jre/lib/rt.jar": b"PK",
            f"{home}/jre/lib/amd64/server/libjvm.so": b"",
            "/app/a.jar": jar({}),
        },
        entrypoint=[f"{home}/bin/java", "-jar", "/app/a.jar"],
    )
    assert needskit.kept_files(image) == {
        *(
            f"{home}/bin/java",
            f"{home}/jre/lib/rt.jar",
            f"{home}/jre/lib/amd64/server/libjvm.so",
            "/app/a.jar",
        ),
    }


def test_class_paths() -> None:
    image: dict[str, Member] = {
        "/app/lib/a.jar": jar({}),
        "/app/lib/b.JAR": jar({}),
        "/app/lib/notes.txt": b"",
        "/app/classes/Main.class": b"\xca\xfe\xba\xbe",
        "/app/classes/Main.java": b"",
        "/app/classes/messages.properties": b"",
        "/app/other/c.jar": jar({}),
        "/app/d.jar": jar({}),
    }
    classes = {"/app/classes/Main.class", "/app/classes/messages.properties"}
    libraries = {"/app/lib/a.jar", "/app/lib/b.JAR"}
    assert extra(image, "java", "-cp", "lib/*:classes", "Main") == libraries | classes
    assert extra(image, "java", "--class-path=classes", "-Xmx1g", "Main") == classes
    assert extra(image, "java", "-p", "other/c.jar", "-m", "m/M") >= {"/app/other/c.jar"}
    assert extra(image, "java", "Main", env={"CLASSPATH": "d.jar:classes"}) == {"/app/d.jar"} | classes
    assert extra({**image, "/app/java.args": b"-cp\n'lib/a.jar' # x\n"}, "java", "@java.args", "Main") == {
        *("/app/java.args", "/app/lib/a.jar"),
    }


def test_manifest_agents_and_options() -> None:
    manifest = "Main-Class: a.Main\r\nClass-Path: lib/one.jar lib/\r\n two.jar missing.jar\r\n"
    image: dict[str, Member] = {
        "/app/a.jar": jar({}, manifest),
        "/app/lib/one.jar": jar({}),
        "/app/lib/two.jar": jar({}),
        "/app/agent.jar": jar({}),
        "/app/logback.xml": b"",
        "/app/trust.jks": b"",
    }
    argv = (
        "-javaagent:agent.jar=port=1",
        "-Dlogback.configurationFile=file:logback.xml",
        "-Dtrust=/app/trust.jks",
    )
    assert extra(image, "java", *argv, "-jar", "a.jar", "serve") == set(image)


def test_spring_boot_reads_configuration_where_it_runs() -> None:
    boot = jar({"BOOT-INF/classes/a/Main.class": b""})
    image: dict[str, Member] = {
        "/app/a.jar": boot,
        "/app/application-prod.yml": b"",
        "/app/config/application.yml": b"",
        "/app/other.yml": b"",
    }
    assert extra(image, "java", "-jar", "/app/a.jar") == set(image) - {"/app/other.yml"}


def test_files_that_classes_name() -> None:
    constants = (
        b"\xca\xfe\xba\xbe\x01\x00\x0dtemplates.xml\x01\x00\x05pages\x01\x00\x12/etc/depot/key.pem\x01"
    )
    image: dict[str, Member] = {
        "/app/pom.xml": b"",
        "/app/target/depot.jar": jar({"a/Main.class": constants + b"target classes src"}),
        "/app/target/classes/Main.class": b"",
        "/app/src/main/resources/pages/x.html": b"",
        "/app/templates.xml": b"",
        "/app/pages/index.html": b"",
        "/app/unnamed.xml": b"",
        "/etc/depot/key.pem": b"",
    }
    assert extra(image, "java", "-jar", "target/depot.jar") == {
        *("/app/target/depot.jar", "/app/templates.xml", "/app/pages/index.html", "/etc/depot/key.pem"),
    }


def test_artifacts_of_archives() -> None:
    shaded = jar({**pom("org.x", "depot", "1.2"), **pom("io.y", "json", "3.0")})
    boot = jar({"BOOT-INF/lib/spring-core-6.1.2.jar": jar({}), "BOOT-INF/classes/A.class": b""})
    packages = found(
        {
            "/app/depot.jar": shaded,
            "/srv/shop-2.0-SNAPSHOT.jar": boot,
            "/srv/titled.jar": jar({}, "Implementation-Version: 9\r\n"),
            "/root/.m2/repository/x/x-1.jar": jar({}),
        }
    )
    assert [(p.name, p.version, p.location, p.paths) for p in packages] == [
        ("org.x:depot", "1.2", "/app/depot.jar", ("/app/depot.jar",)),
        ("io.y:json", "3.0", "/app/depot.jar", ()),
        ("shop", "2.0-SNAPSHOT", "/srv/shop-2.0-SNAPSHOT.jar", ("/srv/shop-2.0-SNAPSHOT.jar",)),
        ("spring-core", "6.1.2", "/srv/shop-2.0-SNAPSHOT.jar", ()),
        ("titled", "9", "/srv/titled.jar", ("/srv/titled.jar",)),
    ]


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"PK\x05\x06" + b"\xff" * 18, jar({"a.class": b"x" * 99})[:-30]]
)
def test_a_broken_archive_is_a_diagnostic(content: bytes) -> None:
    image: dict[str, Member] = {"/app/a.jar": content}
    packages, diagnostics = treekit.packages(ecosystem, treekit.fs(image))
    assert not packages
    assert [diagnostic.code for diagnostic in diagnostics] == ["broken-archive"]
    assert "broken-archive" in needskit.codes(needs(image, "java", "-jar", "a.jar"))
    with pytest.raises(BrokenArchive):
        open_archive(treekit.fs(image), "/app/a.jar")


def test_entries_that_lie_about_their_size_are_cut() -> None:
    archive = open_archive(treekit.fs({"/a.jar": jar({"bomb.class": bytes(1 << 20)})}), "/a.jar")
    assert len(archive.content("bomb.class", 1000)) == 1000
    assert archive.content("none", 1000) == b""


def test_continued_lines_of_a_manifest() -> None:
    text = "Manifest-Version: 1.0\r\nClass-Path: a.jar b\r\n .jar\r\n\r\nName: x\r\nClass-Path: no\r\n"
    assert parse_manifest(text) == {"manifest-version": "1.0", "class-path": "a.jar b.jar"}


def test_libraries_inside_an_archive_bring_what_they_are_linked_with(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None or JAVA is None:
        pytest.skip("the machine has no C compiler or no java")
    launcher = Path(JAVA).resolve()
    libraries = {}
    for line in subprocess.run(
        ["ldd", launcher], check=True, capture_output=True, text=True
    ).stdout.splitlines():
        words = line.split()
        path = next((word for word in words if word.startswith("/")), None)
        if path:
            libraries[path] = File(data=Path(path).read_bytes(), mode=0o755)
    math = Path("/usr/lib/x86_64-linux-gnu/libm.so.6")
    if not math.exists():
        pytest.skip("the machine is no x86-64 Debian")
    libraries[str(math)] = File(data=math.read_bytes(), mode=0o755)
    (tmp_path / "x.c").write_text("int x;")
    command = [gcc, "-shared", "-fPIC", "x.c", "-o", "libx.so", "-Wl,--no-as-needed", "-lm"]
    subprocess.run(command, check=True, cwd=tmp_path)
    built = (tmp_path / "libx.so").read_bytes()
    image: dict[str, Member] = {
        **libraries,
        f"{HOME}/bin/java": File(data=launcher.read_bytes(), mode=0o755),
        "/app/a.jar": jar({"native/Linux/x86_64/libx.so": built, "native/Mac/libx.so": b"\xfe\xed"}),
    }
    assert str(math) in extra(image, "java", "-jar", "a.jar")
