"""What a last stage forgot, from the instructions of the stages before it."""

from __future__ import annotations

import pytest

from layerlens.dockerfile import parse
from layerlens.ecosystems import Lack
from layerlens.ecosystems._node_lacking import installs
from layerlens.forgotten import find_forgotten, mended
from layerlens.history import parse_config

CONFIG = parse_config(b"{}")


def lack(path: str, wanted: str = "node_modules", above: bool = True) -> Lack:
    return Lack(path, f"asks for {wanted}", wanted, above, installs)


def forgotten(text: str, *lacks: Lack) -> list[str]:
    parsed = parse(text)
    return [one.line for one in find_forgotten(parsed, parsed.stages[-1], CONFIG, lacks)]


@pytest.mark.parametrize(
    ("builder", "copied", "asking", "line"),
    [
        # a stage without a name; the RUN alone proves it
        (
            "FROM node\nWORKDIR /app\nCOPY . .\nRUN npm ci\n",
            "COPY --from=0 /app/dist /app/dist",
            "/app/dist/server.js",
            "COPY --from=0 /app/node_modules /app/node_modules",
        ),
        # the contents of dist go to the application's folder
        (
            "FROM node AS b\nWORKDIR /src\nCOPY package.json .\nRUN yarn\n",
            "WORKDIR /app\nCOPY --from=b /src/dist .",
            "/app/server.js",
            "COPY --from=b /src/node_modules /app/node_modules",
        ),
        # one file
        (
            "FROM node AS b\nWORKDIR /src\nRUN pnpm install --frozen-lockfile && pnpm build\n",
            "COPY --from=b /src/dist/server.js /srv/dist/",
            "/srv/dist/server.js",
            "COPY --from=b /src/node_modules /srv/node_modules",
        ),
        # exec form, and a stage upon another
        (
            'FROM node AS a\nWORKDIR /app\nRUN ["npm", "install"]\nFROM a AS b\nRUN npm run build\n',
            "COPY --from=b /app/dist /app/dist",
            "/app/dist/lib/x.js",
            "COPY --from=b /app/node_modules /app/node_modules",
        ),
        # another stage has it at the same place
        (
            "FROM node AS deps\nWORKDIR /app\nRUN bun install\nFROM node AS b\nWORKDIR /app\nCOPY . .\n",
            "COPY --from=b /app/dist /app/dist",
            "/app/dist/x.js",
            "COPY --from=deps /app/node_modules /app/node_modules",
        ),
        # variables, and an owner
        (
            "FROM node AS b\nARG HOME=/app\nWORKDIR $HOME\nRUN npm i\n",
            "COPY --chown=1000 --from=b /app/dist /app/dist",
            "/app/dist/x.js",
            "COPY --from=b --chown=1000 /app/node_modules /app/node_modules",
        ),
    ],
)
def test_where_an_earlier_stage_has_it(builder: str, copied: str, asking: str, line: str) -> None:
    assert forgotten(f"{builder}FROM slim\n{copied}\n", lack(asking)) == [line]


@pytest.mark.parametrize(
    "text",
    [
        "FROM node AS b\nWORKDIR /app\nCOPY . .\nFROM slim\nCOPY --from=b /app/dist /app/dist\n",
        "FROM node AS b\nWORKDIR /app\nRUN npm ci --prefix web\nFROM slim\nCOPY --from=b /app/dist /app/dist\n",
        "FROM node AS b\nWORKDIR /app\nRUN npm run ci\nFROM slim\nCOPY --from=b /app/dist /app/dist\n",
        "FROM node AS b\nWORKDIR /app\nRUN npm ci\nFROM slim\nCOPY dist /app/dist\n",
        "FROM node AS b\nWORKDIR /app\nRUN npm ci\nFROM slim\nCOPY --from=other/image /app/dist /app/dist\n",
        # it is copied there: whatever is wrong with it, another COPY of it does not help
        "FROM node AS b\nWORKDIR /app\nRUN npm ci\nFROM slim\nCOPY --from=b /app/dist /app/dist\n"
        "COPY node_modules /app/node_modules\n",
    ],
)
def test_nothing_is_copied_that_is_not_proved_to_be_there(text: str) -> None:
    assert forgotten(text, lack("/app/dist/server.js")) == []


def test_single_files_and_patterns() -> None:
    text = (
        "FROM node AS b\nWORKDIR /app\nCOPY package*.json ./\nCOPY settings.json dist/settings.json\nRUN npm ci\n"
        "FROM slim\nCOPY --from=b /app/dist/server.js /app/dist/\n"
    )
    asked = [
        lack("/app/dist/server.js", "package.json"),
        lack("/app/dist/server.js", "./settings.json", above=False),
        lack("/app/dist/server.js", "./unknown.js", above=False),
    ]
    assert forgotten(text, *asked) == [
        "COPY --from=b /app/dist/settings.json /app/dist/settings.json",
        "COPY --from=b /app/package.json /app/package.json",
    ]


def test_stages_in_a_circle_end() -> None:
    text = "FROM a AS s0\nCOPY --from=z / /\n" + "".join(
        f"FROM a AS s{n}\nCOPY --from=s{n - 1} / /\nCOPY --from=s{n - 1} /x /\n" for n in range(1, 40)
    )
    assert forgotten(f"{text}FROM slim\nCOPY --from=s39 / /\n", lack("/app/x.js")) == []


def test_they_come_before_what_asks_for_them() -> None:
    builder = "FROM a AS b\nWORKDIR /app\nRUN npm ci\n\n"
    text = f"{builder}FROM c\nWORKDIR /app\n# the app\nCOPY --from=b /app/dist ./dist\n"
    parsed = parse(text)
    found = find_forgotten(parsed, parsed.stages[-1], CONFIG, [lack("/app/dist/x.js")])
    assert mended(parsed, parsed.stages[-1], found) == text.replace(
        "# the app", "COPY --from=b /app/node_modules /app/node_modules\n# the app"
    )
    assert found[0].told == (
        "/app/dist/x.js asks for node_modules: forgotten is COPY --from=b /app/node_modules /app/node_modules"
    )


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("npm ci", True),
        ("npm ci --omit=dev && npm cache clean --force", True),
        ("set -e; yarn --frozen-lockfile", True),
        ("yarn build", False),
        ("npm install -g typescript", False),
        ("cd web && npm ci", False),
        ("npm", False),
        ("echo npm ci", False),
        ("", False),
    ],
)
def test_what_installs(line: str, answer: bool) -> None:
    assert installs(line) == answer
