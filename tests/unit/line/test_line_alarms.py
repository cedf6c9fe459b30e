from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inspector.line.alarms import Alarms
from inspector.line.controllers import Controllers


def names(alarms: Alarms) -> list[str]:
    return [alarm.name for alarm in alarms.all()]


def test_an_alarm_stays_while_its_condition_lasts_and_until_somebody_knows() -> None:
    alarms = Alarms()
    assert alarms.begin("x", 5)
    assert not alarms.begin("x", 6), "it holds already"
    assert alarms.acknowledge("boss") == ("x",)
    (alarm,) = alarms.all()
    assert (alarm.since_ns, alarm.lasts, alarm.acknowledged_by) == (5, True, "boss")
    assert alarms.acknowledge("other") == (), "somebody knows already"
    assert alarms.all()[0].acknowledged_by == "boss"
    assert alarms.end("x")
    assert alarms.all() == ()
    assert not alarms.end("x")


def test_an_alarm_that_is_over_stays_until_somebody_knows() -> None:
    alarms = Alarms()
    alarms.begin("x", 5)
    alarms.end("x")
    assert names(alarms) == ["x"]
    assert not alarms.all()[0].lasts
    assert alarms.begin("x", 9), "it comes again"
    assert alarms.all()[0].since_ns == 5, "since it was raised first"
    alarms.end("x")
    assert alarms.acknowledge("boss") == ("x",)
    assert alarms.all() == ()


def test_what_does_not_last_must_be_acknowledged_each_time() -> None:
    alarms = Alarms()
    alarms.happened("x", 1)
    alarms.happened("x", 2)
    assert [(alarm.name, alarm.since_ns) for alarm in alarms.all()] == [("x", 1)]
    alarms.acknowledge("boss")
    assert alarms.all() == ()
    alarms.happened("x", 3)
    assert names(alarms) == ["x"]


OPERATIONS = st.lists(st.tuples(st.sampled_from(["begin", "end", "acknowledge"]), st.sampled_from("ab")), max_size=40)


@given(OPERATIONS)
def test_no_alarm_goes_before_it_is_over_and_somebody_knows(operations: list[tuple[str, str]]) -> None:
    alarms = Alarms()
    lasts: set[str] = set()
    unknown: set[str] = set()
    for now_ns, (operation, name) in enumerate(operations):
        if operation == "begin":
            if name not in lasts and name not in names(alarms):
                unknown.add(name)
            alarms.begin(name, now_ns)
            lasts.add(name)
        elif operation == "end":
            alarms.end(name)
            lasts.discard(name)
        else:
            assert set(alarms.acknowledge("boss")) == unknown
            unknown.clear()
        assert set(names(alarms)) == lasts | unknown


def test_what_is_wrong_with_the_station_is_an_alarm_and_one_event_each_time() -> None:
    controllers = Controllers((), 500, 200, 0)
    second = 1_000_000_000
    assert controllers.station({"journal": ""}, {"recorder_overwritten": 0}, second) == []
    assert controllers.alarms() == ()
    (event,) = controllers.station({"journal": "the disk is full"}, {"recorder_overwritten": 0}, 2 * second)
    assert (event.name, event.detail) == ("alarm", "journal: the disk is full")
    assert controllers.station({"journal": "the disk is full"}, {"recorder_overwritten": 0}, 3 * second) == []
    (event,) = controllers.station({"journal": ""}, {"recorder_overwritten": 3}, 5 * second)
    assert event.detail == "recorder_overwritten: 3 since the start"
    assert [(one.name, one.lasts) for one in controllers.alarms()] == [("journal", False), ("recorder_overwritten", False)]
    assert controllers.acknowledge_alarms("boss") == ("journal", "recorder_overwritten")
    controllers.station({"journal": ""}, {"recorder_overwritten": 3}, 6 * second)
    assert controllers.alarms() == (), "what was lost before is not lost again"
    controllers.station({"journal": ""}, {"recorder_overwritten": 4}, 7 * second)
    assert [one.name for one in controllers.alarms()] == ["recorder_overwritten"]
