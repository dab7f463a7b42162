"""What the administrator writes: each mistake gets one sentence, that of a file in the log, and none shows a credential."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from cutover.adapters.providers import Providers
from cutover.errors import PlanError
from cutover.settings.settings import Settings, load

SECRET = "s3cret"  # noqa: S105 -- looked for in every sentence
AT = "providers.default.prometheus"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of credentials, good ones and others."""
    folder = tmp_path_factory.mktemp("files")
    authority, other = trustme.CA(), trustme.CA()
    mine, theirs = authority.issue_cert("operator.example"), other.issue_cert("operator.example")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    mine.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    mine.private_key_pem.write_to_path(folder / "tls.key")
    theirs.private_key_pem.write_to_path(folder / "other.key")
    (folder / "token").write_text(f"{SECRET}\n")
    (folder / "user").write_text("alice\n")
    (folder / "empty").write_text("\n")
    (folder / "two").write_text(f"{SECRET}\nX-Admin: yes\n")
    (folder / "binary").write_bytes(b"\xff\xfe" + SECRET.encode())
    (folder / "large").write_text(SECRET * 20000)
    (folder / "colon").write_text(f"alice:{SECRET}")
    (folder / "folder").mkdir()
    return folder


def written(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text)
    return file


def loaded(tmp_path: Path, server: dict[str, Any], files: Path, kind: str = "prometheus") -> Settings:
    """These settings of one provider; FILES stands for the folder of files."""
    return load(
        written(tmp_path, yaml.safe_dump({"providers": {"default": {kind: server}}}).replace("FILES", str(files)))
    )


def said(tmp_path: Path, server: dict[str, Any], files: Path) -> list[str]:
    """What is said at start of settings that cannot be read."""
    with pytest.raises(PlanError) as caught:
        loaded(tmp_path, server, files)
    return [str(problem).replace(str(files), "FILES") for problem in caught.value.problems]


def logged(settings: Settings, files: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of files that cannot be used; the operator starts all the same."""
    providers = Providers(settings.providers)
    for _ in range(2):
        assert providers.health() == {"default": False}
    return [record.why.replace(str(files), "FILES") for record in caplog.records]  # type: ignore[attr-defined]


URL = "https://prometheus.monitoring:9090"
SIMPLE: list[tuple[dict[str, Any], str]] = [
    ({}, "url: required field is missing"),
    ({"url": "prometheus:9090"}, "url: the value is not valid: write a URL such as https://prometheus.monitoring:9090"),
    ({"url": f"https://alice:{SECRET}@x"}, "url: the URL contains a user or a password; put them into files and name the files in basic"),
    ({"url": f"https://x/?token={SECRET}"}, "url: the URL contains ? or #; end it before that, the query comes from the plan"),
    ({"url": URL, "timeout": 0}, "timeout: the value is too small; it must be above 0"),
    ({"url": URL, "timeout": 61}, "timeout: the value is too large; the maximum is 60"),
    ({"url": URL, "timeout": "soon"}, "timeout: the value is a string; write a number without quotes"),
    ({"url": URL, "maxBytes": 10}, "maxBytes: the value is too small; the minimum is 1024"),
    ({"url": URL, "maxBytes": 1 << 30}, "maxBytes: the value is too large; the maximum is 16777216"),
    ({"url": URL, "concurrency": 0}, "concurrency: the value is too small; the minimum is 1"),
    ({"url": URL, "concurrency": 257}, "concurrency: the value is too large; the maximum is 256"),
    ({"url": URL, "bearerToken": SECRET}, "bearerToken: unknown field; did you mean bearerTokenFile?"),
    ({"url": URL, "bearerTokenFile": SECRET}, "bearerTokenFile: is not an absolute path; give the file that contains the value, such as /etc/cutover-files/login/token"),
    ({"url": URL, "bearerTokenFile": 12345}, "bearerTokenFile: the value is not a string; put it in quotes"),
    ({"url": URL, "bearerTokenFile": {"name": SECRET}}, "bearerTokenFile: must be a string, not a mapping"),
    ({"url": URL, "basic": f"alice:{SECRET}"}, "basic: the value is not a mapping; put its fields below it, indented"),
    ({"url": URL, "basic": {"usernameFile": "/x"}}, "basic.passwordFile: required field is missing"),
    ({"url": URL, "headers": f"X-Key: {SECRET}"}, "headers: the value is not a mapping; put its fields below it, indented"),
    ({"url": URL, "headers": {"X-Key": f"{SECRET}\n"}}, "headers.X-Key: is not a valid header value; give a string of printable ASCII characters"),
    ({"url": URL, "headers": {f"X {SECRET}": "1"}}, "headers: a header name contains characters that are not allowed; use letters, digits and -"),
    ({"url": URL, "headers": {"authorization": f"Bearer {SECRET}"}}, "headers: authorization is secret; put its value into a file and name the file in headerFiles"),
    ({"url": URL, "headers": {"Host": "1"}}, "headers: Host is set by the request itself; remove it"),
    ({"url": "https://prometheus:9o90"}, "url: the value is not valid: write a URL such as https://prometheus.monitoring:9090"),
    ({"url": "https://prometheus:99999"}, "url: the value is not valid: write a URL such as https://prometheus.monitoring:9090"),
    ({"url": URL, "tls": {"insecureSkipVerify": True}}, "tls.insecureSkipVerify: unknown field; remove it"),
]  # fmt: skip


@pytest.mark.parametrize(("server", "says"), SIMPLE, ids=[says.partition(";")[0] for _, says in SIMPLE])
def test_one_sentence_a_field(server: dict[str, Any], says: str, tmp_path: Path, files: Path) -> None:
    found = said(tmp_path, server, files)
    assert found == [f"{AT}.{says}"]
    assert SECRET not in found[0].partition(": ")[2]


WHOLE: list[tuple[dict[str, Any], str]] = [
    ({"bearerTokenFile": "FILES/token", "basic": {"usernameFile": "FILES/user", "passwordFile": "FILES/token"}}, f"{AT}: bearerTokenFile and basic exclude each other; keep one"),
    ({"bearerTokenFile": "FILES/token", "headerFiles": {"authorization": "FILES/token"}}, f"{AT}: header Authorization is given twice; keep one"),
    ({"headers": {"X-Key": SECRET}, "headerFiles": {"x-key": "FILES/token"}}, f"{AT}: header X-Key is given twice; keep one"),
    ({"tls": {"certFile": "FILES/tls.crt"}}, f"{AT}.tls: has certFile but no keyFile; give both"),
    ({"tls": {"keyFile": "FILES/tls.key"}}, f"{AT}.tls: has keyFile but no certFile; give both"),
    ({"tls": {}}, f"{AT}.tls: has neither caFile nor certFile; give one, or remove tls"),
    ({"url": "http://x", "tls": {"caFile": "FILES/ca.crt"}}, f"{AT}: has tls, but its url begins with http:; write https:, or remove tls"),
]  # fmt: skip
OF_FILES: list[tuple[dict[str, Any], str]] = [
    ({"bearerTokenFile": "FILES/nowhere"}, f"{AT}.bearerTokenFile: FILES/nowhere cannot be read: no such file or directory"),
    ({"bearerTokenFile": "FILES/folder"}, f"{AT}.bearerTokenFile: FILES/folder cannot be read: is a directory"),
    ({"bearerTokenFile": "FILES/empty"}, f"{AT}.bearerTokenFile: FILES/empty is empty"),
    ({"bearerTokenFile": "FILES/two"}, f"{AT}.bearerTokenFile: FILES/two contains line breaks or characters other than printable ASCII; it must contain only the value"),
    ({"bearerTokenFile": "FILES/binary"}, f"{AT}.bearerTokenFile: FILES/binary is not a text file"),
    ({"bearerTokenFile": "FILES/large"}, f"{AT}.bearerTokenFile: FILES/large is larger than 65536 bytes; check that it is the right file"),
    ({"headerFiles": {"X-Key": "FILES/two"}}, f"{AT}.headerFiles.X-Key: FILES/two contains line breaks or characters other than printable ASCII; it must contain only the value"),
    ({"basic": {"usernameFile": "FILES/colon", "passwordFile": "FILES/token"}}, f"{AT}.basic.usernameFile: FILES/colon contains a colon, which a user name must not have"),
    ({"tls": {"caFile": "FILES/nowhere"}}, f"{AT}.tls.caFile: FILES/nowhere cannot be read: no such file or directory"),
    ({"tls": {"caFile": "FILES/token"}}, f"{AT}.tls.caFile: FILES/token contains no PEM certificates"),
    ({"tls": {"certFile": "FILES/nowhere", "keyFile": "FILES/tls.key"}}, f"{AT}.tls.certFile: FILES/nowhere cannot be read: no such file or directory"),
    ({"tls": {"certFile": "FILES/tls.crt", "keyFile": "FILES/other.key"}}, f"{AT}.tls: the key in FILES/other.key does not match the certificate in FILES/tls.crt"),
    ({"tls": {"certFile": "FILES/tls.crt", "keyFile": "FILES/token"}}, f"{AT}.tls: FILES/tls.crt and FILES/token are not a PEM certificate and key without a passphrase"),
]  # fmt: skip


@pytest.mark.parametrize(("server", "says"), WHOLE, ids=[says.rpartition(": ")[2] for _, says in WHOLE])
def test_one_sentence_for_what_does_not_fit(server: dict[str, Any], says: str, tmp_path: Path, files: Path) -> None:
    assert said(tmp_path, {"url": URL} | server, files) == [says]
    assert SECRET not in says


@pytest.mark.parametrize(("server", "says"), OF_FILES, ids=[says.rpartition(": ")[2] for _, says in OF_FILES])
def test_a_file_stops_no_start_and_the_log_has_one_sentence_for_it(
    server: dict[str, Any], says: str, tmp_path: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert logged(loaded(tmp_path, {"url": URL} | server, files), files, caplog) == [says]
    assert SECRET not in str([vars(record) for record in caplog.records])


def test_all_that_is_of_no_use_is_reported_at_once(
    tmp_path: Path, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = {
        "url": URL,
        "basic": {"usernameFile": "FILES/nowhere", "passwordFile": "FILES/empty"},
        "tls": {"caFile": "FILES/token"},
    }
    found = logged(loaded(tmp_path, server, files, "http"), files, caplog)
    assert [says.partition(":")[0] for says in found] == [
        "providers.default.http.basic.usernameFile",
        "providers.default.http.basic.passwordFile",
        "providers.default.http.tls.caFile",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("providers: {default: {}}", "providers.default: must have exactly one of prometheus and http"),
        (
            f"providers: {{default: {{prometheus: {{url: {URL}}}, http: {{url: {URL}}}}}}}",
            "providers.default: must have exactly one of prometheus and http",
        ),
        (
            f"providers: {{Default: {{http: {{url: {URL}}}}}}}",
            "providers.Default.[key]: the value is not a valid name; use lower case letters, digits and -, and begin and end with a letter or digit (at most 63 characters)",
        ),
        (f"providers:\n  x: [{SECRET}\n", "FILE is not valid YAML at line 3, column 1"),
        (f"port: 1\n{SECRET}: 2\n{SECRET}: 3\n", "FILE, line 3: a key is given twice; keep one"),
        (f"{SECRET}\n", "FILE is not a mapping; write `providers:` and the providers below it"),
        ("\0", "FILE is not valid YAML: it must be printable UTF-8 text"),
    ],
)
def test_the_file_as_a_whole(text: str, says: str, tmp_path: Path) -> None:
    file = written(tmp_path, text)
    with pytest.raises(PlanError) as caught:
        load(file)
    assert str(caught.value).replace(str(file), "FILE") == says


def test_what_is_good_is_taken_and_shows_no_header(files: Path, tmp_path: Path) -> None:
    server = {
        "url": f"{URL}/prefix/",
        "basic": {"usernameFile": "FILES/user", "passwordFile": "FILES/token"},
        "headers": {"X-Scope-OrgID": SECRET},
        "headerFiles": {"X-Key": "FILES/token"},
        "tls": {"caFile": "FILES/ca.crt", "certFile": "FILES/tls.crt", "keyFile": "FILES/tls.key"},
    }
    text = yaml.safe_dump({"providers": {"default": {"http": server}}}).replace("FILES", str(files))
    settings = load(written(tmp_path, text))
    found = settings.providers["default"].server
    assert found.url == f"{URL}/prefix"
    assert (found.timeout, found.max_bytes, found.concurrency) == (10, 1 << 20, 32)
    assert found.read_headers() == {"X-Scope-OrgID": SECRET, "X-Key": SECRET, "Authorization": "Basic YWxpY2U6czNjcmV0"}
    assert SECRET not in repr(settings)


def test_nothing_is_needed() -> None:
    assert load(None) == Settings()
