// bind.cpp - what Python may call of lob-connect's native parts; nothing is decided here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "replay.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace lob;

NB_MODULE(_native, m) {
    nb::class_<LinePlayer>(m, "LinePlayer")
        .def(nb::init<>())
        .def("open", [](LinePlayer& p, const std::string& label, std::uint16_t connection,
                        std::uint32_t session) { p.open(label, connection, session); },
             "label"_a, "connection"_a, "session"_a)
        .def("close", [](LinePlayer& p, const std::string& label) { p.close(label); }, "label"_a)
        .def(
            "play",
            [](LinePlayer& player, SpscWriter<>& writer, nb::bytes text, std::size_t offset, std::uint64_t lines_max) {
                if (offset > text.size()) throw std::out_of_range("an offset beyond the text");
                const auto played = player.play(writer, {text.c_str(), text.size()}, offset, lines_max);
                return nb::make_tuple(played.offset, played.lines, played.payload_bytes);
            },
            "writer"_a, "text"_a, "offset"_a, "lines_max"_a,
            "(offset of the first line not played, lines, payload bytes): stops at a line that is the caller's or finds no room.");
}
