// bind.cpp - what Python may call of the pump; nothing is decided here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "pump.hpp"
#include "tops_rows.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace lob;
using publish::Desk;
using publish::Pump;
using publish::TextSink;
using publish::Turn;
using publish::Worker;
using publish::WorkTurn;

namespace {

const char* word_of_turn(Turn turn) {
    switch (turn) {
        case Turn::idle: return "idle";
        case Turn::time: return "time";
        case Turn::blocked: return "blocked";
        case Turn::lost: return "lost";
        case Turn::epoch: return "epoch";
    }
    return "?";
}

// Calls with a record from Python, at an address where its words may be read.
template <class Call>
void with_record(nb::bytes bytes, Call&& call) {
    std::vector<std::uint64_t> words((bytes.size() + 7) / 8);
    std::memcpy(words.data(), bytes.c_str(), bytes.size());
    auto& record = *reinterpret_cast<RecordHeader*>(words.data());
    if (bytes.size() < sizeof(RecordHeader) || record.size_bytes != words.size() * 8)
        throw std::invalid_argument("no record: " + std::to_string(bytes.size()) + " bytes");
    call(record);
}

}  // namespace

NB_MODULE(_native, m) {
    nb::module_::import_("lob._native");  // whose readers and writers we are given
    m.def("trace_to", &lob::trace_to, "trace"_a.none(), "From now on trace points go there; None: nowhere.");

    nb::class_<TextSink>(m, "TextSink")
        .def(nb::init<int>(), "fd"_a)
        .def("set_waits", &TextSink::set_waits, "waits"_a)
        .def("finish", &TextSink::finish, "Nothing more will be put.")
        .def(
            "wait_written",
            [](TextSink& s, int timeout_ms) {
                nb::gil_scoped_release release;
                return s.wait_written(timeout_ms * std::int64_t{1'000'000});
            },
            "timeout_ms"_a, "Whether all is written, or has failed.")
        .def(
            "counts",
            [](const TextSink& s) {
                const auto counts = s.counts();
                return nb::make_tuple(counts.lines, counts.bytes, counts.dropped, counts.error);
            },
            "(lines written, bytes written, lines dropped, errno of the write that failed or 0).");

    m.attr("WORKERS_MAX") = publish::WORKERS_MAX;
    m.attr("PARTS_MAX") = publish::PARTS_MAX;
    nb::class_<Desk>(m, "Desk")
        .def(nb::init<int, Segment&>(), "fd"_a, "ring"_a, nb::keep_alive<1, 3>())
        .def("set_ring", &Desk::set_ring, "ring"_a, nb::keep_alive<1, 2>())
        .def("stop", &Desk::stop, "Workers end when nothing is left.")
        .def("close_part", &Desk::close_part, "part"_a)
        .def(
            "counts",
            [](const Desk& d, std::uint32_t part) {
                const auto counts = d.counts(part);
                return nb::make_tuple(counts.lines, counts.bytes, counts.dropped, counts.error);
            },
            "part"_a, "(lines written, bytes written, lines dropped, errno of the first write that failed or 0) of all workers.")
        .def("batches", &Desk::batches, "worker"_a, "How many it has done.")
        .def_prop_ro("done", &Desk::done, "Batches done, without a gap from the first.")
        .def_prop_ro("lost", &Desk::lost, "Records that were overwritten before a worker had read them.");
    nb::class_<Worker>(m, "Worker")
        .def(nb::init<int, std::uint32_t, Segment&, std::vector<int>, int>(), "fd"_a, "number"_a, "ring"_a, "fds"_a, "stdout_part"_a,
             nb::keep_alive<1, 4>())
        .def("set_ring", &Worker::set_ring, "ring"_a, nb::keep_alive<1, 2>())
        .def(
            "run",
            [](Worker& w, const std::string& wait, int max_ms) {
                const WaitMode mode = wait_mode(wait);
                WorkTurn turn;
                {
                    nb::gil_scoped_release release;
                    turn = w.run(mode, max_ms);
                }
                return turn == WorkTurn::stop ? "stop" : turn == WorkTurn::ring ? "ring" : "time";
            },
            "wait"_a, "max_ms"_a, "time, ring or stop: why it came back.");

    nb::class_<Pump>(m, "Pump")
        .def(nb::init<BroadcastReader<>&>(), "reader"_a, nb::keep_alive<1, 2>())
        .def("set_reader", &Pump::set_reader, "reader"_a, nb::keep_alive<1, 2>())
        .def("add_ring", &Pump::add_ring, "writer"_a, "skip"_a, nb::keep_alive<1, 2>())
        .def("remove_ring", &Pump::remove_ring, "index"_a)
        .def(
            "counts",
            [](const Pump& p, std::size_t index) {
                const auto counts = p.counts(index);
                return nb::make_tuple(counts.records, counts.bytes, counts.oversize);
            },
            "index"_a, "(records, bytes, records too large) of a public ring.")
        .def("add_text", &Pump::add_text, "sink"_a, nb::keep_alive<1, 2>())
        .def("remove_text", &Pump::remove_text, "index"_a)
        .def("set_desk", &Pump::set_desk, "desk"_a, nb::keep_alive<1, 2>())
        .def("inject", [](Pump& p, nb::bytes record) { with_record(record, [&](auto& r) { p.inject(r); }); }, "record"_a)
        .def("learn", [](Pump& p, nb::bytes record) { with_record(record, [&](auto& r) { p.learn(r); }); }, "record"_a)
        .def("skip_numbers", &Pump::skip_numbers, "count"_a)
        .def("await_snapshot", &Pump::await_snapshot, "instrument"_a)
        .def("await_nothing", &Pump::await_nothing)
        .def(
            "run",
            [](Pump& p, const std::string& wait, int stint_ms, int idle_ms) {
                const WaitMode mode = wait_mode(wait);
                Turn turn;
                {
                    nb::gil_scoped_release release;
                    turn = p.run(mode, stint_ms, idle_ms);
                }
                return word_of_turn(turn);
            },
            "wait"_a, "stint_ms"_a, "idle_ms"_a = 50, "idle, time, blocked, lost or epoch: why it came back.")
        .def("flush", &Pump::flush)
        .def("take_lost", &Pump::take_lost)
        .def_prop_ro("pending", &Pump::pending)
        .def_prop_ro("drained", &Pump::drained)
        .def_prop_ro("records", &Pump::records)
        .def_prop_ro("refused", &Pump::refused)
        .def_prop_ro("instruments_version", &Pump::instruments_version)
        .def("rows", [](const Pump& p) { return top_rows(p.tops()); }, "As lob._native.Tops.rows.")
        .def(
            "states",
            [](const Pump& p) {
                nb::dict states;
                for (const auto& [id, top] : p.tops().all())
                    states[nb::int_(id)] = nb::make_tuple(top.state, top.reason, top.version, top.last_seq, top.connection, top.session);
                return states;
            },
            "Instrument id -> (state, reason, version, last_seq, connection, session).")
        .def(
            "instruments",
            [](const Pump& p) {
                nb::list records;
                for (const auto& [id, words] : p.instruments())
                    records.append(nb::bytes(reinterpret_cast<const char*>(words.data()), words.size() * 8));
                return records;
            },
            "The newest record of each instrument.");
}
