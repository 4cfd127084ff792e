"""Where settings come from: precedence, variables, the file, retired names, derived defaults, exit codes."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.faults import ConfigRefused
from config.flags import FLAG_NAMES, read_flags
from config.load import Loaded, Machine, load
from config.retired import RETIRED, RETIRED_FILE_KEYS, RETIRED_FLAGS, Retired
from config.schema import BY_NAME, DECLARED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from config.setting import Setting

CONFLICT = (
    "conflicting environment variable is shadowed by corresponding command-line flag "
    "(either unset environment variable or disable flag))"
)
ETCD_35_FILE = """
name: 'default'
data-dir:
wal-dir:
snapshot-count: 10000
heartbeat-interval: 100
election-timeout: 1000
quota-backend-bytes: 0
listen-peer-urls: http://localhost:2380
listen-client-urls: http://localhost:2379
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://localhost:2380
advertise-client-urls: http://localhost:2379
discovery:
discovery-fallback: 'proxy'
discovery-proxy:
discovery-srv:
initial-cluster:
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-v2: true
enable-pprof: false
proxy: 'off'
proxy-failure-wait: 5000
client-transport-security:
  cert-file:
  client-cert-auth: false
  auto-tls: false
peer-transport-security:
  cert-file:
debug: false
logger: zap
log-outputs: [stderr]
log-package-levels:
force-new-cluster: false
auto-compaction-mode: periodic
auto-compaction-retention: "0"
experimental-watch-progress-notify-interval: 5000000000
"""


def machine(file: str = "", host: str | None = None) -> Machine:
    return Machine(read_text=lambda _path: file, default_host=lambda: host)


def loaded(
    arguments: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    *,
    file: str | None = None,
    host: str | None = None,
) -> Loaded:
    if file is not None:
        arguments = [*arguments, "--config-file", "given.yaml"]
    return load(read_flags(arguments), environ or {}, machine(file or "", host))


def refused(
    arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None, *, file: str | None = None
) -> ConfigRefused:
    with pytest.raises(ConfigRefused) as caught:
        loaded(arguments, environ, file=file)
    return caught.value


def lines(refusal: ConfigRefused) -> list[str]:
    return [str(fault) for fault in refusal.faults]


def harmless_value(retired: Retired) -> str:
    """Return a value that asks for nothing beyond the defaults."""
    if retired.name == "experimental-txn-mode-write-with-shared-buffer":
        return "true"
    if retired.is_switch or retired.successor is None:
        return "false"
    return BY_NAME[retired.successor].setting.default_text


def note_texts(result: Loaded) -> list[str]:
    return [note.text for note in result.notes]


@pytest.mark.parametrize(
    "arguments", [["--name=a"], ["-name=a"], ["--name", "a"], ["-name", "a"], ["--name=b", "--name=a"]]
)
def test_flag_forms(arguments: list[str]) -> None:
    """One dash or two, the value behind it or after it; the last one counts."""
    assert loaded(arguments).config.member.name == "a"


@pytest.mark.parametrize(
    ("arguments", "on"), [(["--pre-vote"], True), (["--pre-vote=false"], False), (["--pre-vote=F"], False)]
)
def test_switches_take_their_value_only_with_an_equals_sign(arguments: list[str], on: bool) -> None:
    """A bare switch means true, as for every Go program."""
    assert loaded(arguments).config.clustering.pre_vote is on


@pytest.mark.parametrize(
    ("arguments", "line", "exit_code"),
    [
        (["--nope"], "flag provided but not defined: -nope", 2),
        (["--nam=x"], "flag provided but not defined: -nam (did you mean --name?)", 2),
        (["--name"], "flag needs an argument: -name", 2),
        (["---name"], "bad flag syntax: ---name", 2),
        (["--=x"], "bad flag syntax: --=x", 2),
        (["foo"], '"foo" is not a valid flag', 1),
        (["--pre-vote", "false"], '"false" is not a valid flag', 1),
        (["--", "foo", "bar"], '"foo" is not a valid flag', 1),
        (["--heartbeat-interval=x"], 'invalid value "x" for flag -heartbeat-interval: parse error', 2),
        (["--max-snapshots=-1"], 'invalid value "-1" for flag -max-snapshots: parse error', 2),
        (["--pre-vote=maybe"], 'invalid boolean value "maybe" for -pre-vote: parse error', 2),
        (["--version=maybe"], 'invalid boolean value "maybe" for -version: parse error', 2),
        (["--grpc-keepalive-interval=5"], 'invalid value "5" for flag -grpc-keepalive-interval: parse error', 2),
        (["--extensions=x"], "flag provided but not defined: -extensions", 2),
    ],
)
def test_bad_flags_have_etcds_words_and_exit_codes(arguments: list[str], line: str, exit_code: int) -> None:
    """Launchers tell usage faults (2) from configurations that make no sense (1)."""
    refusal = refused(arguments)
    assert lines(refusal) == [line]
    assert refusal.exit_code == exit_code


def test_all_faults_are_reported_together() -> None:
    """One run shows everything that is to be fixed: flags, variables and rules between settings."""
    refusal = refused(
        [
            "--nope",
            "3",
            "--max-wals=x",
            "--listen-peer-urls=foo",
            "--logger=x",
            "--heartbeat-interval=300",
        ],
        {"ETCD_MAX_SNAPSHOTS": "x", "ETCD_LOGGER": "zap"},
    )
    assert lines(refusal) == [
        "flag provided but not defined: -nope",
        f"ETCD_LOGGER: {CONFLICT}",
        'invalid value "x" for ETCD_MAX_SNAPSHOTS: parse error',
        'invalid value "x" for flag -max-wals: parse error',
        'invalid value "foo" for flag -listen-peer-urls: URL scheme must be http, https, unix, or unixs: foo',
        'unknown logger option "x"',
        "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
    ]
    assert refusal.exit_code == 2


def test_rules_between_settings_wait_for_readable_values() -> None:
    """A rule is not judged by the default of a value that could not be read; that fault would only confuse."""
    assert len(refused(["--heartbeat-interval=x", "--election-timeout=50"]).faults) == 1


@pytest.mark.parametrize(
    "setting", [each.setting for each in DECLARED if each.setting.flag], ids=lambda setting: setting.name
)
def test_every_flag_has_a_variable(setting: Setting) -> None:
    """Containers are configured by variables: each setting is reached by one, with the same rules."""
    assert setting.variable == "ETCD_" + setting.name.upper().replace("-", "_")
    refusal = refused([f"--{setting.name}={setting.default_text}"], {setting.variable: "x"})
    assert f"{setting.variable}: {CONFLICT}" in lines(refusal)


def test_variables_set_values() -> None:
    """An empty variable is not set."""
    result = loaded(environ={"ETCD_NAME": "n1", "ETCD_DATA_DIR": "", "ETCD_MAX_TXN_OPS": "7", "HOME": "/"})
    assert (result.config.member.name, result.config.member.data_dir, result.config.member.max_txn_ops) == (
        "n1",
        "n1.etcd",
        7,
    )


def test_flag_and_variable_conflict_even_if_the_variable_is_empty() -> None:
    """Etcd refuses this whatever the values are, so that nobody has to guess which one counts."""
    refusal = refused(["--name=x"], {"ETCD_NAME": ""})
    assert lines(refusal) == [f"ETCD_NAME: {CONFLICT}"]
    assert refusal.exit_code == 1


def test_bad_variables_are_refused() -> None:
    """Exit code 1, not 2: the command line itself was fine."""
    refusal = refused(environ={"ETCD_HEARTBEAT_INTERVAL": "x"})
    assert lines(refusal) == ['invalid value "x" for ETCD_HEARTBEAT_INTERVAL: parse error']
    assert refusal.exit_code == 1


def test_unknown_variables_only_warn() -> None:
    """Kubernetes sets ETCD_SERVICE_HOST and the like; a slip of the pen gets the nearest name."""
    result = loaded(
        ["--name=a", "--data-dir=a"], {"ETCD_PRE_VOT": "1", "ETCD_VERSION": "3", "ETCD_UNSUPPORTED_ARCH": "arm"}
    )
    assert [(note.text, dict(note.fields)) for note in result.notes] == [
        ("unrecognized environment variable", {"environment_variable": "ETCD_PRE_VOT", "nearest": "ETCD_PRE_VOTE"}),
        ("cannot set special environment variable", {"key": "ETCD_VERSION"}),
    ]


def test_file_shuts_out_flags_and_variables() -> None:
    """Etcd's rule, and it says so: half a configuration from elsewhere would surprise."""
    result = loaded(["--max-wals=9"], {"ETCD_MAX_SNAPSHOTS": "9", "ETCD_MAX_WALS": "8"}, file="name: f\ndata-dir: d")
    assert (result.config.member.name, result.config.member.max_wals, result.config.member.max_snapshots) == ("f", 5, 5)
    assert note_texts(result) == ["the configuration file alone counts; flags and environment variables are ignored"]


def test_file_may_be_named_by_a_variable() -> None:
    """ETCD_CONFIG_FILE works like the flag."""
    result = load(read_flags([]), {"ETCD_CONFIG_FILE": "x"}, machine("name: f"))
    assert result.config.member.name == "f"


def test_bad_flags_count_even_with_a_file() -> None:
    """Flags are read before they are ignored, and their faults join those of the file."""
    assert lines(refused(["--nope"], file="name: 3")) == [
        "flag provided but not defined: -nope",
        "name=3: expected a text (put it into quotes), found the number 3",
    ]


def test_json_is_a_file_format_too() -> None:
    """Etcd takes YAML or JSON, tabs and all."""
    text = '{\n\t"name": "j",\n\t"log-outputs": ["stdout"],\n\t"client-transport-security": {"auto-tls": false}}'
    result = loaded(file=text)
    assert (result.config.member.name, result.config.logging.log_outputs) == ("j", ("stdout",))


def test_file_values_in_etcds_forms() -> None:
    """Lists of URLs are one text, durations nanoseconds, log-outputs a list, and null leaves the default."""
    result = loaded(
        file="listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\ngrpc-keepalive-interval: 60000000000\n"
        "log-outputs: [stderr, stdout]\nmax-wals:\nlisten-peer-urls: ''\ninitial-cluster-state: ''\nengine: grpcio\n"
    )
    member = result.config.member
    assert [url.port for url in member.listen_client_urls] == [1, 2]
    assert (member.grpc_keepalive_interval_s, member.max_wals) == (60.0, 5)
    assert result.config.logging.log_outputs == ("stderr", "stdout")
    assert [url.port for url in member.listen_peer_urls] == [2380]
    assert result.config.own.engine == "grpcio"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("a: [b", "error converting YAML to JSON: yaml: line 1: expected ',' or ']', but got '<stream end>'"),
        ("foo", "the configuration file must hold keys and values at its top"),
        ("peer-transport-security: 3", "invalid peer-transport-security: it must hold keys and values"),
        (
            "listen-client-urls: foo",
            "unexpected error setting up listen-client-urls: URL scheme must be http, https, unix, or unixs: foo",
        ),
        ("initial-cluster-state: foo", 'initial-cluster-state=foo: unexpected clusterState "foo"'),
        ("heartbeat-interval: x", 'heartbeat-interval=x: expected a whole number, found the text "x"'),
        (
            "client-transport-security: {cert-file: x}",
            "--cert-file=x: KeyFile and CertFile must both be present[key: , cert: x]",
        ),
        ("name: 2020-13-45", "error converting YAML to JSON: yaml: month must be in 1..12"),
    ],
)
def test_bad_files_are_refused(file: str, line: str) -> None:
    """Exit code 1 for all of them, with the key as it stands in the file."""
    refusal = refused(file=file)
    assert lines(refusal) == [line]
    assert refusal.exit_code == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory"), "open given.yaml: no such file or directory"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "the file is not UTF-8 text: "),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(error: Exception, line: str) -> None:
    """The operator learns which file and why."""

    def fail(_path: str) -> str:
        raise error

    with pytest.raises(ConfigRefused) as caught:
        load(read_flags(["--config-file=given.yaml"]), {}, Machine(fail, lambda: None))
    assert line in str(caught.value)
    assert "given.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("heartbeat-intervall", "heartbeat-interval"),
        ("cert-file", "client-transport-security.cert-file"),
        ("peer-cert-file", "peer-transport-security.cert-file"),
        ("socket-reuse-port", "socket-options.reuse-port"),
        ("qqqqqqq", None),
    ],
)
def test_unknown_keys_in_the_file_warn_with_the_nearest_name(key: str, nearest: str | None) -> None:
    """Etcd says nothing, and a misspelt key then looks as if it were set."""
    notes = [note for note in loaded(file=f"{key}: 1\nname: a\ndata-dir: a\n").notes if note.level == "warning"]
    assert [note.text for note in notes] == ["ignored an unknown key in the file"]
    assert notes[0].fields.get("nearest") == nearest


def test_flags_without_a_file_key_are_named_as_such() -> None:
    """A few flags have no key in the file; whoever puts them there should know."""
    assert "ignored a key that only flags and environment variables can set" in note_texts(
        loaded(file="raft-read-timeout: 1")
    )


def test_keys_given_twice_warn() -> None:
    """YAML takes the last one without a word."""
    notes = loaded(file="name: a\nmax-wals: 1\nname: b\n").notes
    assert {"key": "name", "line": 3} in [dict(note.fields) for note in notes]


def test_a_file_of_etcd_35_works() -> None:
    """The sample file that etcd 3.5 shipped loads: retired keys warn, nothing is refused."""
    result = loaded(file=ETCD_35_FILE)
    assert result.config.features.watch_progress_notify_interval_s == 5.0
    assert result.config.clustering.strict_reconfig_check is False
    warned = [note.fields["key"] for note in result.notes if note.text == "a retired name is used"]
    assert sorted(map(str, warned)) == [
        "debug",
        "discovery-fallback",
        "enable-v2",
        "experimental-watch-progress-notify-interval",
        "proxy-failure-wait",
    ]


@pytest.mark.parametrize("retired", RETIRED_FLAGS.values(), ids=lambda retired: retired.name)
def test_retired_flags_and_variables_lead_on_with_a_warning(retired: Retired) -> None:
    """Old launchers keep working: a name of etcd 3.4 to 3.6 is taken, and what became of it is said."""
    text = harmless_value(retired)
    assert "a retired name is used" in note_texts(loaded([f"--{retired.name}={text}"]))
    if text:  # an empty variable is not set
        assert "a retired name is used" in note_texts(loaded(environ={retired.variable: text}))


@pytest.mark.parametrize("retired", RETIRED, ids=lambda retired: retired.name)
def test_retired_names_lead_to_settings_that_exist(retired: Retired) -> None:
    """A successor is a setting, and no retired name hides a living one."""
    assert retired.successor is None or retired.successor in BY_NAME
    assert retired.file_only or retired.name not in BY_NAME


def test_retired_names_carry_their_values() -> None:
    """The value arrives at the successor, from flags as from the file with its own types."""
    assert loaded(["--experimental-max-learners=3"]).config.features.max_learners == 3
    assert loaded(["--debug"]).config.logging.log_level == "debug"
    assert loaded(file="debug: true").config.logging.log_level == "debug"
    assert (
        loaded(file="experimental-warning-apply-duration: 1000000000").config.features.warning_apply_duration_s == 1.0
    )


def test_the_successor_wins_over_the_retired_name() -> None:
    """Both given: the living name counts, and the log says so."""
    result = loaded(["--experimental-max-learners=3", "--max-learners=2"])
    assert result.config.features.max_learners == 2
    assert "a retired name is ignored, since its successor is set too" in note_texts(result)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--experimental-max-learners=x"], 'invalid value "x" for flag -experimental-max-learners: parse error'),
        (["--proxy=maybe"], 'invalid value "maybe" for flag -proxy: must be one of off, readonly, on, not "maybe"'),
    ],
)
def test_retired_names_whose_loss_would_harm_are_refused(arguments: list[str], line: str) -> None:
    """A proxy must not become a member, and a cluster that waits for discovery must not become two."""
    assert lines(refused(arguments)) == [line]


def test_name_moves_data_dir_and_initial_cluster() -> None:
    """``actcd --name x`` alone is a working configuration."""
    config = loaded(["--name=x"]).config
    assert (config.member.data_dir, config.member.wal_dir) == ("x.etcd", "x.etcd/member/wal")
    assert [(member.name, [str(url) for url in member.peer_urls]) for member in config.clustering.initial_cluster] == [
        ("x", ["http://localhost:2380"])
    ]


def test_initial_cluster_follows_advertised_peer_urls() -> None:
    """Moving the peer port needs one setting, not two that must agree."""
    config = loaded(["--initial-advertise-peer-urls=http://10.0.0.1:1,http://10.0.0.1:2", "--wal-dir=w"]).config
    assert config.clustering.initial_cluster[0].peer_urls == config.clustering.initial_advertise_peer_urls
    assert config.member.wal_dir == "w"


@pytest.mark.parametrize(
    ("host", "advertised"),
    [("10.1.2.3", "http://10.1.2.3:99"), ("fd00::1", "http://[fd00::1]:99"), (None, "http://localhost:2380")],
)
def test_listening_everywhere_advertises_the_machines_address(host: str | None, advertised: str) -> None:
    """Others cannot reach localhost; without an address of its own the machine keeps the default."""
    config = loaded(["--listen-peer-urls=http://0.0.0.0:99"], host=host).config
    assert [str(url) for url in config.clustering.initial_advertise_peer_urls] == [advertised]
    assert [str(url) for url in config.clustering.initial_cluster[0].peer_urls] == [advertised]


def test_zero_stands_for_etcds_defaults() -> None:
    """Readers of Config meet the value that counts, not a 0 that means another number."""
    config = loaded().config
    assert config.member.quota_backend_bytes == 2 * 1024**3
    assert config.features.compaction_batch_limit == 1000
    assert config.features.compaction_sleep_interval_s == 0.01
    assert config.features.watch_progress_notify_interval_s == 600.0
    assert loaded(["--snapshot-count=0", "--quota-backend-bytes=-1"]).config.member.snapshot_count == 10_000
    assert loaded(["--quota-backend-bytes=-1"]).config.member.quota_backend_bytes == -1


def test_progress_notices_have_a_shortest_interval() -> None:
    """Etcd raises what is shorter, and says so."""
    result = loaded(["--watch-progress-notify-interval=1ms"])
    assert result.config.features.watch_progress_notify_interval_s == 0.1
    assert {"key": "watch-progress-notify-interval", "raised_to": "100ms"} in [
        dict(note.fields) for note in result.notes
    ]


def test_timeouts_of_peers_have_a_shortest_value() -> None:
    """Peers say that they live every 5/3 s, so less would break connections that are sound (etcd raises it, too)."""
    result = loaded(["--raft-read-timeout=1s", "--raft-write-timeout=7s"])
    member = result.config.member
    assert (member.raft_read_timeout_s, member.raft_write_timeout_s) == (5.0, 7.0)
    raised = [note.fields for note in result.notes if "raised" in note.text]
    assert raised == [{"key": "raft-read-timeout", "raised_to": "5s"}]


def test_a_gate_of_bbolt_is_accepted_with_a_warning() -> None:
    """Its members start here, too; every other gate can be switched."""
    result = loaded(["--feature-gates=AllAlpha=true,TxnModeWriteWithSharedBuffer=false"])
    keys = [note.fields.get("key") for note in result.notes if "LevelDB needs no such setting" in note.text]
    assert keys == ["TxnModeWriteWithSharedBuffer"]


def test_settings_without_effect_are_accepted_with_a_warning() -> None:
    """Tuning of bbolt does no harm here, but whoever sets it should know."""
    result = loaded(["--backend-batch-limit=3", "--backend-batch-interval=1s", "--backend-bbolt-freelist-type=array"])
    keys = [note.fields.get("key") for note in result.notes if "LevelDB needs no such setting" in note.text]
    assert keys == ["--backend-batch-limit", "--backend-batch-interval", "--backend-bbolt-freelist-type"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the name is the default one; members of one cluster need names of their own"),
        ([], "data-dir was empty, so the default is used"),
        (["--quota-backend-bytes=9663676416"], "the quota exceeds what is recommended"),
        (["--max-request-bytes=10485761"], "the largest request exceeds what is recommended"),
    ],
)
def test_doubtful_values_warn(arguments: list[str], text: str) -> None:
    """Etcd warns about these as well."""
    assert text in note_texts(loaded(arguments))


def test_secrets_are_not_repeated() -> None:
    """A refusal goes into logs and tickets; a password must not."""
    for refusal in (
        refused(["--discovery-password=hunter2", "--discovery-token=t"]),
        refused(file="discovery-config: {client: {auth: {password: [4711]}}}"),
    ):
        assert "hunter2" not in str(refusal)
        assert "4711" not in str(refusal)


FLAGS = st.sampled_from([f"--{name}" for name in sorted(FLAG_NAMES)])
FILE_KEYS = st.sampled_from(sorted({*RETIRED_FILE_KEYS, *(each.setting.file_key.split(".")[0] for each in DECLARED)}))
FILE_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)
FILES = st.text(max_size=60) | st.dictionaries(FILE_KEYS | st.text(max_size=8), FILE_VALUES, max_size=4).map(json.dumps)


@given(st.lists(st.text(max_size=12) | FLAGS, max_size=5))
def test_any_command_line_loads_or_is_refused(arguments: list[str]) -> None:
    """No words on a command line end in anything but a configuration or faults."""
    with contextlib.suppress(ConfigRefused):
        assert loaded(arguments).config.member.data_dir


@given(FILES)
def test_any_file_loads_or_is_refused(text: str) -> None:
    """No file ends in anything but a configuration or faults."""
    with contextlib.suppress(ConfigRefused):
        assert loaded(file=text).config.member.data_dir
