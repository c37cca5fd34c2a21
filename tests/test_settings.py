"""Signatures as schemas, and choices of members made from them."""

import functools
import pickle
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from annotated_types import MaxLen, MinLen
from fake_members import fake_registry, learner, mlp
from pydantic import AfterValidator, Field

from plasticity.config.fields import BelowOne, Count, Duration, Fraction, Member, Natural, NonNegative, Positive, Real
from plasticity.config.schema import REQUIRED, Setting, schema_of, words
from plasticity.config.settings import MemberConfig, Parser, paths


def one(annotation: Any, default: Any = REQUIRED) -> Setting:
    """The setting ``x`` with this annotation."""

    def factory(*, x):  # type: ignore[no-untyped-def]
        del x

    factory.__annotations__ = {"x": annotation}
    factory.__kwdefaults__ = {} if default is REQUIRED else {"x": default}
    return schema_of(factory)["x"]


def choose(family: str, raw: Any) -> MemberConfig:
    parser = Parser(fake_registry())
    choice = parser.member(family, raw, (family,))
    assert not parser.problems
    assert choice is not None
    return choice


def refused(family: str, raw: Any) -> list[tuple]:
    parser = Parser(fake_registry())
    parser.member(family, raw, ())
    return [tuple(problem)[:2] for problem in parser.problems]


# Schema.


def test_only_keyword_parameters_are_settings() -> None:
    assert list(schema_of(mlp)) == ["widths", "activation"]
    assert list(schema_of(learner)) == ["network", "target", "optimizer", "discount", "n_step", "double"]


def test_names_known_to_the_type_checker_alone_are_left_alone() -> None:
    def factory(network: "NowhereDefined", *, rate: "NonNegative" = 0) -> "NorThis":  # type: ignore[name-defined] # noqa: F821
        del network, rate

    assert schema_of(factory)["rate"].allowed == "a number of at least 0"


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Real, "a number"),
        (Positive, "a number greater than 0"),
        (NonNegative, "a number of at least 0"),
        (Fraction, "a number in [0, 1]"),
        (BelowOne, "a number in [0, 1)"),
        (Annotated[float, Field(gt=-1, le=2)], "a number in (-1, 2]"),
        (Annotated[float, Field(lt=2)], "a number less than 2"),
        (Annotated[int, Field(le=2)], "an integer of at most 2"),
        (Count, "an integer in [1, 2147483647]"),
        (bool, "true or false"),
        (str | None, "text or null"),
        (Literal["a"], "`a`"),
        (Literal["a", "b", "c"], "`a`, `b` or `c`"),
        (Literal[1, True], "1 or true"),
        (tuple[Count, ...], "a list, each an integer in [1, 2147483647]"),
        (Annotated[list[str], MinLen(2)], "a list with 2 or more, each text"),
        (Annotated[list[str], MinLen(2), MaxLen(3)], "a list with 2 to 3, each text"),
        (Annotated[list[str], MinLen(2), MaxLen(2)], "a list with 2, each text"),
        (Annotated[list[str], MaxLen(3)], "a list with at most 3, each text"),
        (tuple[int, bool], "a list of 2: an integer, true or false"),
        (dict[str, int], "a mapping"),
        (list, "a list"),
        (Any, "anything"),
        (Count | Literal["auto"] | None, "an integer in [1, 2147483647] or `auto` or null"),
    ],
)
def test_words(annotation: Any, text: Any) -> None:
    assert words(annotation) == text


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Natural, [0, 3, 1e6, np.int32(2)], [-1, 1.5, True, "1", None, float("nan"), float("inf"), [1]]),
        (Real, [0, -1.5, np.float32(2), float("inf")], [True, "1.0", "1e-3", None, float("nan"), 1e300]),
        (Positive, [1e-30, 3], [0, -1, 1e-60]),  # 1e-60 is 0 in float32
        (Duration, [1e-30, 3e38], [0, -1, float("inf"), 1e39]),  # 1e39 is infinite in float32
        (BelowOne, [0, 0.999], [1, 0.99999999999]),  # which is 1 in float32
        (bool, [True, False], [0, 1, "true", "yes", None]),
        (str, ["a", ""], [1, True, None]),
        (Literal["a", "b"], ["a"], ["c", 1, None]),
        (tuple[Count, ...], [[], [1, 2], (3,)], [[0], 3, "3", [True], [1.5]]),
        (tuple[int, float], [[1, 2.5]], [[1], [1, 2, 3], [True, 1.0]]),
        (list[Count], [[1]], [[0], {"a": 1}]),
        (dict[str, Count], [{}, {"a": 1}], [{"a": 0}, [], {"a": True}]),
        (Count | Literal["auto"], [1, "auto"], [0, "atuo", True]),
        (bool | int, [True, 2], ["x", 1.5]),
    ],
)
def test_what_is_allowed(annotation: Any, good: Any, bad: Any) -> None:
    setting = one(annotation)
    for value in good:
        parsed = setting.parse(value)
        assert parsed == (tuple(value) if isinstance(parsed, tuple) else value)
    for value in bad:
        with pytest.raises(ValueError, match="is not allowed; must be "):
            setting.parse(value)


def test_types_after_parsing() -> None:
    assert type(one(Natural).parse(1e6)) is int
    assert type(one(Real).parse(3)) is float
    assert type(one(Positive | None).parse(np.float32(3))) is float
    assert one(bool | int).parse(True) is True
    assert type(one(tuple[Count, ...]).parse([1])) is tuple
    assert one(Literal["true", "random"]).parse(True) == "true"  # as YAML reads it unquoted
    with pytest.raises(ValueError, match=r"^false is not allowed; must be `true` or `random`$"):
        one(Literal["true", "random"]).parse(False)


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"^-0.1 is not allowed; must be a number greater than 0$"):
        one(Positive).parse(-0.1)
    with pytest.raises(ValueError, match=r'^"rleu" is not allowed; must be `relu` or `tanh`; did you mean `relu`\?$'):
        one(Literal["relu", "tanh"]).parse("rleu")
    with pytest.raises(ValueError, match=r"^1e-60 .* greater than 0 \(as a float32\)$"):
        one(Positive).parse(1e-60)

    def even(value: int) -> int:
        if value % 2:
            raise ValueError("it is odd")
        return value

    with pytest.raises(ValueError, match=r"^3 is not allowed; must be an integer \(it is odd\)$"):
        one(Annotated[int, AfterValidator(even)]).parse(3)


def test_defaults_are_checked_and_take_the_annotated_type() -> None:
    assert type(one(Real, 1).default) is float
    assert one(Positive | None, None).default is None
    assert one(Count).required
    with pytest.raises(TypeError, match=r"`x`: -1 is not allowed; must be an integer in .1, 2147483647."):
        one(Count, -1)
    with pytest.raises(TypeError, match="null is not allowed"):
        one(Count, None)


def test_what_cannot_be_a_schema() -> None:
    def reserved(*, kind: str) -> None:
        del kind

    with pytest.raises(TypeError, match="`kind`"):
        schema_of(reserved)
    with pytest.raises(TypeError, match="traced numbers and members are not allowed"):
        one(tuple[Positive, ...])
    with pytest.raises(TypeError, match="traced numbers and members are not allowed in a container"):
        one(dict[str, Annotated[Any, Member("networks")]])
    with pytest.raises(TypeError, match="`x`"):
        one(np.ndarray)


def test_traced_goes_by_the_value_too() -> None:
    setting = one(Positive | Literal["auto"] | None)
    assert setting.traced
    assert setting.is_traced(0.5)
    assert not setting.is_traced(None)
    assert not setting.is_traced("auto")
    assert not one(Annotated[float, Field(gt=0)]).is_traced(0.5)


# Choices.


def test_a_name_is_short_for_the_defaults() -> None:
    assert choose("optimizers", "adam") == choose("optimizers", {"kind": "adam"})
    assert choose("optimizers", "adam").values == {"learning_rate": 1e-3, "b1": 0.9, "clip": None}


def test_dump_is_explicit_and_parses_back() -> None:
    raw = {"kind": "learner", "optimizer": {"kind": "sgd", "learning_rate": 1}, "network": {"widths": [4, 4]}}
    choice = choose("agents", raw)
    assert choice.dump() == {
        "kind": "learner",
        "network": {"kind": "mlp", "widths": [4, 4], "activation": "relu"},
        "target": None,
        "optimizer": {"kind": "sgd", "learning_rate": 1.0},
        "discount": 0.99,
        "n_step": 1,
        "double": False,
    }
    assert choose("agents", choice.dump()) == choice
    assert hash(choose("agents", choice.dump())) == hash(choice)


def test_build_gives_partials_down_to_the_leaves() -> None:
    built = choose("agents", {"kind": "learner", "optimizer": "adam"}).build()
    assert isinstance(built, functools.partial)
    _, spec, network, target, optimizer, discount, *_ = built("the spec")
    assert spec == "the spec"
    assert network((3,), 2) == ("mlp", (3,), 2, (8,), "relu")
    assert target is None
    assert optimizer() == ("adam", 1e-3, 0.9, None)
    assert discount == 0.99


def test_build_takes_numbers_by_dotted_path() -> None:
    choice = choose("agents", {"kind": "learner", "optimizer": {"kind": "adam", "clip": 1.0}})
    hyper = {
        "agent.optimizer.learning_rate": 7.0,
        "agent.discount": 0.5,
        "agent.optimizer.nothing": 1.0,
        "agent.n_step": 9,
    }
    built = choice.build(hyper, "agent")("spec")
    assert built[4]() == ("adam", 7.0, 0.9, 1.0)
    assert built[5] == 0.5
    assert built[6] == 1  # static: never taken from the numbers


def test_traced_lists_every_number_of_the_program() -> None:
    choice = choose("agents", {"kind": "learner", "optimizer": {"kind": "adam", "clip": 2}, "discount": 0.5})
    assert choice.traced("agent") == {
        "agent.optimizer.learning_rate": 1e-3,
        "agent.optimizer.b1": 0.9,
        "agent.optimizer.clip": 2.0,
        "agent.discount": 0.5,
    }
    assert choose("optimizers", "adam").traced() == {"learning_rate": 1e-3, "b1": 0.9}


def test_static_ignores_traced_numbers_and_nothing_else() -> None:
    def static(**settings: Any) -> Any:
        return choose("agents", {"kind": "learner", "optimizer": "adam"} | settings).static()

    base = static()
    assert static(discount=0.1, optimizer={"kind": "adam", "learning_rate": 5}) == base
    assert hash(static(discount=0.1)) == hash(base)
    different = [
        static(n_step=2),
        static(double=True),
        static(network={"widths": [9]}),
        static(network="linear"),
        static(target="mlp"),
        static(optimizer={"kind": "sgd", "learning_rate": 1e-3}),
        static(optimizer={"kind": "adam", "clip": 1.0}),  # null -> a number is another program
    ]
    assert len({base, *different}) == len(different) + 1


def test_static_tells_equal_numbers_of_different_types_apart() -> None:
    def either(*, x: bool | int | None = None, table: dict[str, int] | None = None) -> None:
        del x, table

    def static(**values: Any) -> Any:
        return MemberConfig("monitors", "either", {"x": None, "table": None} | values, either).static()

    assert static(x=1) != static(x=True)
    assert static(table={"a": 1, "b": 2}) == static(table={"b": 2, "a": 1})


def test_lists_of_members() -> None:
    raw = {
        "kind": "committee",
        "optimizers": ["adam", {"kind": "sgd", "learning_rate": 0.1}, {"kind": "sgd", "learning_rate": 0.2}],
    }
    choice = choose("agents", raw)
    assert choose("agents", choice.dump()) == choice
    numbers = choice.traced("agent")
    assert numbers["agent.optimizers.adam.b1"] == 0.9
    assert numbers["agent.optimizers.1.learning_rate"] == 0.1  # two of a kind go by their index
    assert numbers["agent.optimizers.2.learning_rate"] == 0.2
    built = choice.build({"agent.optimizers.2.learning_rate": 5.0, "agent.optimizers.adam.b1": 0.0}, "agent")
    assert built("spec")[2] == (("adam", 1e-3, 0.0, None), ("sgd", 0.1), ("sgd", 5.0))
    assert choose("agents", {"kind": "committee", "optimizers": []}).build()("s") == ("committee", "s", (), 0.0)


def test_paths_of_a_list() -> None:
    assert paths("interventions", [choose("interventions", k) for k in ("reset", "layer_norm", "reset")]) == (
        "interventions.0",
        "interventions.layer_norm",
        "interventions.2",
    )


def test_build_with_tracers_compiles_once_for_all_numbers() -> None:
    choice = choose("optimizers", {"kind": "adam", "clip": 1.0})
    traces = []

    @jax.jit
    @jax.vmap
    def step(hyper: Any) -> Any:
        traces.append(1)
        _, learning_rate, b1, clip = choice.build(hyper, "o")()
        return learning_rate * 10 + b1 + clip

    def run(rates: Any) -> Any:
        return step({"o.learning_rate": jnp.array(rates), "o.b1": jnp.array([0.5, 0.25])})

    np.testing.assert_allclose(run([1.0, 2.0]), [11.5, 21.25])
    np.testing.assert_allclose(run([3.0, 4.0]), [31.5, 41.25])
    assert len(traces) == 1


def test_a_choice_can_be_sent_to_a_worker() -> None:
    choice = choose("agents", {"kind": "learner", "optimizer": "adam"})
    assert pickle.loads(pickle.dumps(choice)) == choice


def test_choices_of_equal_settings_are_equal_and_others_not() -> None:
    assert choose("interventions", "reset") != choose("interventions", {"kind": "reset", "period": 3})
    assert choose("optimizers", "adam") != choose("optimizers", {"kind": "sgd", "learning_rate": 1e-3})


ADM = "unknown optimizer `adm`; known: adam, sgd; did you mean `adam`?"
FORM = "is not allowed; must be a name or {kind: NAME, ...}"
BARE = "`kind` is missing; known optimizers: adam, sgd"


@pytest.mark.parametrize(
    ("family", "kind", "settings", "at", "text"),
    [
        ("optimizers", "adm", {}, (), ADM),
        ("optimizers", None, {}, (), BARE),
        ("optimizers", 3, {}, (), "kind: 3 is not allowed; known optimizers: adam, sgd"),
        ("optimizers", "sgd", {}, ("learning_rate",), "is required; must be a number greater than 0"),
        ("monitors", "norm", {"x": 1}, ("x",), "unknown key; it has no settings"),
        ("monitors", "rank", {1: 1}, ("1",), "unknown key; allowed: delta"),
        ("monitors", "rank", {"detla": 1}, ("detla",), "unknown key; allowed: delta; did you mean `delta`?"),
        ("agents", "learner", {}, ("optimizer",), "is required; must be one of the optimizers"),
        ("agents", "learner", {"optimizer": 3}, ("optimizer",), f"3 {FORM}"),
        ("agents", "learner", {"optimizer": None}, ("optimizer",), f"null {FORM}"),
        (
            "agents",
            "learner",
            {"optimizer": {"kind": "adam", "b1": 1}},
            ("optimizer", "b1"),
            "1 is not allowed; must be a number in [0, 1)",
        ),
        ("agents", "committee", {"optimizers": 3}, ("optimizers",), "3 is not allowed; must be a list of optimizers"),
        ("agents", "committee", {"optimizers": ["adam", "adm"]}, ("optimizers", 1), ADM),
    ],
)
def test_refusals_name_the_place(family: Any, kind: Any, settings: Any, at: Any, text: Any) -> None:
    raw = settings if kind is None else {"kind": kind} | settings
    assert refused(family, raw) == [(at, text)]


def test_all_problems_are_found_at_once() -> None:
    raw = {"kind": "learner", "optimizer": {"kind": "adam", "b1": 2, "x": 1}, "discount": "a", "nwtork": 1}
    assert [at for at, _ in refused("agents", raw)] == [
        ("nwtork",),
        ("optimizer", "x"),
        ("optimizer", "b1"),
        ("discount",),
    ]


def test_a_list_that_is_too_long_says_so():
    from plasticity.networks.catalogue import NETWORKS

    with pytest.raises(ValueError, match=r"must be a list with at most 100, each an integer in \[1, 1048576\]"):
        schema_of(NETWORKS["mlp"])["widths"].parse([2] * 101)
