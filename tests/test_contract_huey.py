"""What Huey does that we rely on, or dodge: a new release of it fails here before it fails a site."""

import logging
import signal
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from huey import MemoryHuey, SqliteHuey
from huey import signals as sent
from huey.consumer import Consumer, ConsumerStopped, Scheduler, ThreadEnvironment, Worker
from huey.exceptions import ConfigurationError, HueyException, RetryTask, TaskLockedException
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import MemoryStorage

MINUTE = datetime(2024, 5, 1, 12, 0)


class QuietConsumer(Consumer):
    """A consumer that leaves the test run's own signal handlers alone."""

    def _set_signal_handlers(self):
        pass


class Heard(list):
    """The names of the signals a Huey sent, in order."""

    def __init__(self, huey):
        huey.signal()(lambda name, task, *args: self.append(name))


@contextmanager
def consuming(huey, **options):
    consumer = QuietConsumer(huey, **{"initial_delay": 0.01, "max_delay": 0.01, **options})
    consumer.start()
    try:
        yield consumer
    finally:
        consumer.stop()


def drain(huey):
    """Execute what is queued in this thread; return how many messages that was."""
    done = 0
    while huey.pending_count():
        huey.execute(huey.dequeue())
        done += 1
    return done


def stopped():
    """A stop flag that is set, so that no loop under test waits."""
    flag = threading.Event()
    flag.set()
    return flag


def new_scheduler(huey):
    return Scheduler(huey, stopped(), interval=60, periodic=True)


def new_worker(huey):
    return Worker(huey, stopped(), default_delay=0.1, max_delay=10, backoff=2)


@pytest.fixture(autouse=True)
def leaves_no_thread(until):
    """Huey's threads are daemons, which the check for all tests lets pass."""
    before = set(threading.enumerate())
    yield
    until(lambda: set(threading.enumerate()) <= before)


@pytest.fixture
def gate():
    """An event that lets a held task go on; open at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def huey():
    return MemoryHuey("contract", results=False)


# Messages


def test_a_message_is_gone_once_it_is_popped(huey):
    """Why a message says "sweep now" and carries no work: a killed worker's message is nowhere any more."""
    task = huey.task()(lambda: None)
    task()
    assert huey.dequeue() is not None
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 0)


def test_a_message_read_from_the_schedule_is_gone_before_it_is_queued(huey):
    """Why backoff lives in the flag's row: a kill between reading the schedule and queueing loses the retry."""
    huey.add_schedule(huey.task()(lambda: None).s(delay=-1))
    assert len(huey.read_schedule()) == 1
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 0)


def test_a_message_has_these_fields_and_no_other():
    """Why our JSON messages may leave most of them out: a new field must be looked at, or it would be dropped."""
    assert " ".join(Message._fields) == (
        "id name eta retries retry_delay priority args kwargs on_complete on_error "
        "expires expires_resolved timeout chord_config retry_backoff"
    )


def test_a_message_can_be_made_from_its_name_alone():
    """Why what is left out of our JSON comes back as None, as it does in Huey's own."""
    assert Message(name="sweep")._asdict() == dict.fromkeys(Message._fields) | {"name": "sweep"}


def test_a_serializer_is_two_hooks_that_get_messages_and_lock_values():
    """Why ours overrides _serialize and _deserialize, and must take a lock's value beside a message."""
    seen = []

    class Recording(Serializer):
        def _serialize(self, data):
            seen.append(data)
            return super()._serialize(data)

        def _deserialize(self, data):
            seen.append("read")
            return super()._deserialize(data)

    huey = MemoryHuey("contract", results=False, serializer=Recording())
    huey.task(name="sweep")(lambda: None)()
    huey.dequeue()
    huey.lock_task("lane").acquire()
    assert [type(each) for each in seen] == [Message, str, str]
    assert seen[1:] == ["read", "1"]


def test_every_message_is_written_and_read_by_two_methods_of_huey():
    """Why overriding serialize_task and deserialize_task is enough for no pickle to be written or read."""

    class Ours(MemoryHuey):
        def serialize_task(self, task):
            return [task.id, task.eta, task.retries, task.retry_delay, task.expires_resolved]

        def deserialize_task(self, data):
            names = ("id", "eta", "retries", "retry_delay", "expires_resolved")
            return sweep.task_class(**dict(zip(names, data, strict=True)))

    huey = Ours("contract", results=False)
    sweep = huey.task(name="sweep", retries=2, retry_delay=7, expires=60)(lambda: None)
    queued, later = sweep.s(), sweep.s(delay=-1)
    huey.enqueue(queued)
    huey.add_schedule(later)
    for written, read in ((queued, huey.dequeue()), (later, huey.read_schedule()[0])):
        assert huey.serialize_task(read) == huey.serialize_task(written)


def test_eta_and_resolved_expiry_are_naive_utc_datetimes(huey):
    """The two fields of a periodic task's message that JSON does not know: ours turns them into text."""
    task = huey.task(expires=60)(lambda: None).s(delay=60)
    huey.enqueue(task)
    message = huey._registry.create_message(task)
    for moment in (message.eta, message.expires_resolved):
        assert isinstance(moment, datetime) and moment.tzinfo is None
        assert timedelta(0) < moment.replace(tzinfo=UTC) - datetime.now(UTC) <= timedelta(seconds=60)


def test_garbage_is_dropped_with_a_backoff_and_kills_nothing(huey, caplog):
    """Why the queue's maximal delay is short: each unreadable message costs one growing sleep and a log line."""
    worker = new_worker(huey)
    for _ in range(2):
        huey.storage.enqueue(b"garbage")
        worker.loop()
    assert (huey.pending_count(), worker.delay) == (0, 0.4)
    assert [r.getMessage() for r in caplog.records if r.exc_info] == ["Error reading from queue"] * 2


def test_a_message_for_an_unknown_task_cannot_be_read(huey):
    """Why a consumer without a lane's task drops that lane's messages, and its own tick must come from itself."""
    other = MemoryHuey("contract", results=False)
    huey.storage.enqueue(other.serialize_task(other.task(name="unknown")(lambda: None).s()))
    with pytest.raises(HueyException, match="not found in TaskRegistry"):
        huey.dequeue()
    assert huey.pending_count() == 0


def test_one_huey_refuses_two_tasks_of_one_name_and_two_hueys_do_not(huey):
    """Why each lane's sweep task has a name of its own, and two FlagSweep objects a Huey of their own."""
    huey.task(name="sweep")(lambda: None)
    MemoryHuey("contract").task(name="sweep")(lambda: None)
    with pytest.raises(ValueError, match="same identifier"):
        huey.task(name="sweep")(lambda: None)


def test_results_are_kept_for_ever_unless_switched_off():
    """Why our Huey has results=False: nobody reads what a sweep returns."""
    kept, dropped = MemoryHuey("kept"), MemoryHuey("dropped", results=False)
    for huey in (kept, dropped):
        huey.task()(lambda: 1)()
        drain(huey)
    assert (kept.result_count(), dropped.result_count()) == (1, 0)


# Retries, expiry, time limits


def test_retry_task_with_a_delay_burns_no_retry_and_logs_no_traceback(huey, caplog):
    """How a sweep waits for a database that is away: for as long as it takes, without filling the log."""
    caplog.set_level(logging.DEBUG)

    @huey.task(retries=2, retry_delay=7, retry_backoff=3)
    def sweep():
        raise RetryTask(delay=60)

    heard = Heard(huey)
    sweep()
    drain(huey)
    [again] = huey.scheduled()
    assert (again.retries, again.retry_delay) == (2, 7)
    assert heard == [sent.SIGNAL_ENQUEUED, sent.SIGNAL_EXECUTING, sent.SIGNAL_RETRYING, sent.SIGNAL_SCHEDULED]
    assert not [r for r in caplog.records if r.exc_info or r.levelno >= logging.WARNING]


def test_retry_task_retries_a_task_that_has_no_retries(huey):
    """Why our task needs no retries= for RetryTask to work, and why nothing but ourselves ever ends the chain."""

    @huey.task()
    def sweep():
        raise RetryTask(delay=60)

    sweep()
    drain(huey)
    assert [again.retries for again in huey.scheduled()] == [0]


def test_every_periodic_tick_that_retries_adds_a_message(huey):
    """Why an asked-for retry must look whether its lane has one scheduled: the next tick knows nothing of it."""

    @huey.periodic_task(lambda now: True)
    def sweep():
        raise RetryTask(delay=60)

    for _ in range(3):
        new_scheduler(huey).loop(MINUTE)
        drain(huey)
    assert huey.scheduled_count() == 3


def test_expires_in_seconds_starts_anew_at_each_enqueue(huey):
    """Why minutes do not expire by Huey's seconds once they are retried: only an absolute time would hold."""
    task = huey.task(expires=60)(lambda: None).s()
    huey.enqueue(task)
    task.expires_resolved = datetime.min
    huey.enqueue(task)
    assert task.expires_resolved > datetime.min


def test_an_absolute_expiry_stays_what_it_was(huey):
    """The form of expires that a retry does not move."""
    at = datetime.now(UTC) + timedelta(seconds=60)
    task = huey.task()(lambda: None).s(expires=at)
    resolved = []
    for _ in range(2):
        huey.enqueue(task)
        resolved.append(task.expires_resolved.replace(tzinfo=UTC))
    assert resolved == [at, at]


def test_an_expired_message_is_dropped_unrun(huey):
    """What keeps ticks from piling up behind a busy worker."""
    ran = []
    task = huey.task(expires=1)(lambda: ran.append(1)).s()
    huey.enqueue(task)
    heard = Heard(huey)
    huey.execute(huey.dequeue(), task.expires_resolved + timedelta(seconds=1))
    assert (ran, heard, huey.pending_count()) == ([], [sent.SIGNAL_EXPIRED], 0)


def test_a_locked_task_burns_its_retries_at_once(huey):
    """Why the sweep takes its lock inside and returns quietly where another sweep holds it."""
    heard = Heard(huey)
    task = huey.task(retries=5)(huey.lock_task("lane")(lambda: None))
    with huey.lock_task("lane"):
        task()
        assert drain(huey) == 6
    assert heard.count(sent.SIGNAL_LOCKED) == 6
    assert sent.SIGNAL_COMPLETE not in heard


def test_timeout_does_nothing_in_a_thread_worker(huey, until):
    """Why slow handlers are watched by a thread of ours: Huey lets this one run past its limit and calls it good."""
    heard = Heard(huey)

    @huey.task(timeout=0.001, context=True)
    def slow(task):
        until(lambda: task.is_timed_out)

    slow()
    with consuming(huey):
        until(lambda: sent.SIGNAL_COMPLETE in heard)
    assert sent.SIGNAL_TIMEOUT not in heard


# Locks


def test_a_task_lock_holds_the_text_1_under_a_key_we_know(huey):
    """Why our lock writes the consumer's id instead: this value says nothing about who holds it."""
    huey.lock_task("sweep:mail").acquire()
    assert huey.get("contract.lock.sweep:mail", peek=True) == "1"
    with pytest.raises(TaskLockedException):
        huey.lock_task("sweep:mail").acquire()


def test_anybody_may_release_a_task_lock(huey):
    """Why our lock is deleted only by its owner or by whoever rescues that owner."""
    huey.lock_task("lane").acquire()
    assert huey.lock_task("lane").release()
    assert not huey.is_locked("lane")


def test_leaving_a_task_lock_deletes_the_next_owners(huey):
    """Why leaving our lock first looks whether it is still ours."""
    with huey.lock_task("lane") as first:
        first.clear()
        huey.lock_task("lane").acquire()
    assert not huey.is_locked("lane")


def test_flushing_locks_deletes_those_of_the_living(huey):
    """Why flush_locks is never used: it asks nobody."""
    huey.lock_task("lane").acquire()
    assert huey.flush_locks() == {"lane"}


def test_memory_ignores_the_ttl_of_a_lock_and_sqlite_refuses_it(huey, tmp_path):
    """Why a stale lock is ended by the rescue of its owner and never by the passing of time."""
    huey.lock_task("lane", ttl=-1).acquire()
    assert huey.is_locked("lane")
    on_disk = SqliteHuey("contract", filename=str(tmp_path / "queue.db"))
    with pytest.raises(NotImplementedError):
        on_disk.lock_task("lane", ttl=1).acquire()
    on_disk.storage.close()


def test_put_if_empty_lets_one_of_many_threads_in(huey):
    """What our lock is made of in the memory storage."""
    won, start = [], threading.Barrier(8)

    def race(number):
        start.wait(30)
        if huey.put_if_empty("lock", number):
            won.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert won == [huey.get("lock", peek=True)]


# The memory storage and the worker's wait


def test_the_memory_storage_answers_an_empty_queue_at_once(huey):
    """Why ours overrides dequeue and sets blocking: this one makes the worker poll."""
    assert MemoryStorage.blocking is False
    assert huey.storage.dequeue() is None


def test_a_worker_sleeps_after_an_empty_dequeue_unless_the_storage_blocks(huey):
    """What lets our storage wake its workers at once: with blocking=True the worker comes straight back."""
    worker, slept = new_worker(huey), []
    worker.sleep = lambda: slept.append(1)
    worker.loop()
    huey.storage.blocking = True
    worker.loop()
    assert slept == [1]


def test_the_memory_storage_hands_out_high_priorities_first_then_the_oldest(huey):
    for name, priority in (("old", None), ("new", 0), ("low", -1), ("high", 5)):
        huey.storage.enqueue(name, priority)
    assert [huey.storage.dequeue() for _ in range(4)] == ["high", "old", "new", "low"]


def test_a_polling_worker_may_sleep_ten_seconds_by_default(huey):
    """Why we set initial_delay, backoff and max_delay ourselves."""
    consumer = Consumer(huey)
    assert (consumer.default_delay, consumer.backoff, consumer.max_delay) == (0.1, 1.15, 10.0)


# The scheduler


def test_every_start_repeats_the_tick_of_this_minute(huey):
    """Why a tick means "look at the database" and nothing that must happen once."""
    huey.periodic_task(lambda now: True)(lambda: None)
    new_scheduler(huey).loop(MINUTE)
    new_scheduler(huey).loop(MINUTE)
    assert huey.pending_count() == 2


def test_ticks_that_were_missed_are_not_made_up_for(huey):
    """Why what is owed is found by its due time: ten minutes of standstill yield one tick."""
    huey.periodic_task(lambda now: True)(lambda: None)
    scheduler = new_scheduler(huey)
    scheduler._next_periodic -= 10 * scheduler.periodic_task_seconds
    scheduler.loop(MINUTE)
    assert (scheduler.periodic_task_seconds, huey.pending_count()) == (60, 1)


def test_a_raising_schedule_function_kills_the_scheduler_again_and_again(huey, until):
    """Why our periodic task has a constant schedule that cannot raise: a healthy neighbour never runs either."""
    huey.periodic_task(lambda now: True)(lambda: None)
    huey.periodic_task(lambda now: 1 / 0, name="bad")(lambda: None)
    with pytest.raises(ZeroDivisionError):
        huey.read_periodic(MINUTE)
    with consuming(huey, workers=0) as consumer:
        for _ in range(2):
            until(lambda: not consumer.scheduler.is_alive())
            assert consumer.check_worker_health()
    assert huey.pending_count() == 0


def test_the_scheduler_reads_its_schedule_once_a_second_at_most(huey):
    """Why a shorter wait than a second is never asked of RetryTask."""
    assert [Consumer(huey, scheduler_interval=n).scheduler_interval for n in (0, 1, 60, 90)] == [1, 1, 60, 60]
    with pytest.raises(ConfigurationError, match="factor of 60"):
        Consumer(huey, scheduler_interval=7)


# Workers


def test_system_exit_in_a_task_kills_its_worker_and_loses_the_task(huey, until):
    """Why our runner catches BaseException around each handler."""
    heard = Heard(huey)

    @huey.task(retries=3)
    def leave():
        raise SystemExit

    leave()
    with consuming(huey) as consumer:
        until(lambda: not consumer.worker_threads[0][1].is_alive())
    assert heard == [sent.SIGNAL_ENQUEUED, sent.SIGNAL_EXECUTING]
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 0)


def test_startup_hooks_run_in_every_worker_and_again_in_its_replacement(huey, until):
    """Why the consumer's own row and lease are not made in on_startup."""
    started = []
    huey.on_startup()(lambda: started.append(threading.current_thread().name))

    @huey.task()
    def leave():
        raise SystemExit

    with consuming(huey, workers=3) as consumer:
        until(lambda: len(started) == 3)
        leave()
        until(lambda: not all(thread.is_alive() for _, thread in consumer.worker_threads))
        consumer.check_worker_health()
        until(lambda: len(started) == 4)
    assert set(started) == {"Worker-1", "Worker-2", "Worker-3"}


def test_a_hung_worker_counts_as_healthy(huey, gate):
    """Why progress is watched per flag: Huey asks only whether the thread lives."""
    running = threading.Event()
    huey.task()(lambda: running.set() or gate.wait(30))()
    with consuming(huey) as consumer:
        assert running.wait(30)
        assert consumer.check_worker_health()


def test_workers_are_daemon_threads(huey):
    """Why handlers run in threads of ours and a stop waits for them: daemons are cut off at exit."""
    consumer = Consumer(huey, workers=2)
    assert all(process.daemon for _, process in consumer.worker_threads)
    assert isinstance(consumer.environment, ThreadEnvironment)


# Signals between tasks


def test_receivers_run_in_the_senders_thread_before_the_message_is_queued(huey):
    """Why correctness hangs on no signal of Huey's: "enqueued" is said before it is true."""
    seen = []
    huey.signal(sent.SIGNAL_ENQUEUED)(lambda *a: seen.append((threading.current_thread(), huey.pending_count())))
    huey.task()(lambda: None)()
    assert seen == [(threading.current_thread(), 0)]


def test_a_raising_receiver_is_only_logged(huey, caplog):
    """Why a failing metrics hook cannot stop a sweep."""
    huey.signal()(lambda *a: 1 / 0)
    huey.task()(lambda: None)()
    assert drain(huey) == 1
    assert "Error occurred in receiver" in caplog.text


def test_interrupted_is_signalled_in_the_stopping_thread(huey, gate):
    """Why we release no claim in that signal: it comes on another thread's database connection."""
    running, heard_in = threading.Event(), []
    huey.signal(sent.SIGNAL_INTERRUPTED)(lambda *a: heard_in.append(threading.current_thread()))
    huey.task()(lambda: running.set() or gate.wait(30))()
    with consuming(huey):
        assert running.wait(30)
        huey.notify_interrupted_tasks()
    assert heard_in == [threading.current_thread()]


# The consumer: starting and stopping


@pytest.mark.parametrize(
    ("option", "graceful", "hard"),
    [({}, signal.SIGINT, signal.SIGTERM), ({"graceful_signal": "TERM"}, signal.SIGTERM, signal.SIGINT)],
)
def test_sigterm_is_the_hard_stop_unless_asked_otherwise(huey, option, graceful, hard):
    """Why signals are ours: by default `kill` cuts a task off, and SIGHUP runs sys.argv again."""
    actions = Consumer(huey, **option)._signal_actions
    assert (actions[graceful], actions[hard]) == ((False, True), (False, False))
    assert actions[signal.SIGHUP] == (True, True)


def test_a_graceful_stop_waits_for_ever_unless_given_a_limit(huey, gate):
    """Why we always give shutdown_timeout."""
    assert Consumer(huey).shutdown_timeout is None
    running = threading.Event()
    huey.task()(lambda: running.set() or gate.wait(30))()
    with consuming(huey, shutdown_timeout=0.01) as consumer:
        assert running.wait(30)
        consumer.stop(graceful=True)
        assert huey._tasks_in_flight


def test_a_hard_stop_does_not_wait_for_what_runs(huey, gate):
    """Why our own threads and claims are settled before Huey's consumer returns."""
    running = threading.Event()
    huey.task()(lambda: running.set() or gate.wait(30))()
    with consuming(huey) as consumer:
        assert running.wait(30)
        consumer.stop()
        assert huey._tasks_in_flight


def test_signal_handlers_are_set_last_when_a_consumer_starts(huey):
    """What we override so that signals are ours: one method, called when all threads are running."""

    class Ours(Consumer):
        alive = None

        def _set_signal_handlers(self):
            self.alive = [t.is_alive() for t in (self.scheduler, *(thread for _, thread in self.worker_threads))]

    consumer = Ours(huey, workers=2, initial_delay=0.01)
    consumer.start()
    consumer.stop()
    assert consumer.alive == [True] * 3


def test_a_consumer_cannot_take_signals_outside_the_main_thread(huey):
    """Why an embedded consumer needs that override too."""
    refused = []

    def start():
        try:
            Consumer(huey)._set_signal_handlers()
        except ValueError as error:
            refused.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(30)
    assert refused and "main thread" in refused[0]


def test_run_ends_in_any_thread_once_the_stop_flag_is_set(huey):
    """How a consumer inside a site's process is run and stopped."""
    consumer = QuietConsumer(huey, initial_delay=0.01)
    thread = threading.Thread(target=consumer.run)
    thread.start()
    consumer.stop_flag.set()
    thread.join(30)
    assert not thread.is_alive()


def test_the_main_loop_waits_on_the_stop_flag_for_an_interval_we_may_raise(huey):
    """Why _stop_flag_timeout is raised: a tenth of a second wakes an idle process ten times a second."""
    waited = []

    class Flag(threading.Event):
        def wait(self, timeout=None):
            waited.append(timeout)
            return True

    consumer = Consumer(huey)
    assert consumer._stop_flag_timeout == 0.1
    consumer._stop_flag_timeout, consumer.stop_flag = 60, Flag()
    with pytest.raises(ConsumerStopped):
        consumer.loop()
    assert waited == [60]


def test_hueys_signal_handler_does_not_wake_the_main_loop(huey):
    """Why a raised _stop_flag_timeout needs a handler of ours: Huey's only leaves a note for the next round."""
    consumer = Consumer(huey)
    consumer._handle_signal(signal.SIGTERM, None)
    assert (consumer._signum, consumer._restart, consumer._graceful) == (signal.SIGTERM, False, False)
    assert not consumer.stop_flag.is_set()


def test_the_lock_within_an_event_is_not_reentrant(huey):
    """Why a signal handler sets no stop flag: the main loop may be inside wait(), and would wait for itself."""
    flag = Consumer(huey).stop_flag
    with flag._cond:
        assert not flag._cond.acquire(blocking=False)


# Immediate mode


def test_immediate_mode_runs_in_the_callers_thread_swallows_errors_and_never_retries(huey):
    """Why our tests call the real sweep: within a site's open transaction this would run inside it, and fail unseen."""
    huey.immediate = True
    ran_in = []

    @huey.task(retries=1, retry_delay=1)
    def fail():
        ran_in.append(threading.current_thread())
        raise ValueError

    fail()
    assert (ran_in, huey.scheduled_count()) == ([threading.current_thread()], 1)


def test_a_consumer_refuses_to_start_in_immediate_mode(huey):
    """Why we need not look for it ourselves."""
    huey.immediate = True
    with pytest.raises(ConfigurationError, match="immediate"):
        Consumer(huey).start()
