// bind.cpp - what Python may call of lob-connect's native parts; nothing is decided here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <sys/socket.h>

#include "frames.hpp"
#include "poller.hpp"
#include "replay.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace lob;

namespace {

nb::bytes bytes_of(std::string_view text) { return nb::bytes(text.data(), text.size()); }

// A FrameReader and the Python object that has the methods of its owner. Called with or without the interpreter.
class Frames {
public:
    Frames(nb::object owner, RawSink& sink, std::uint16_t connection, std::uint32_t session, std::uint64_t message_max_bytes, Marks marks)
        : reader(sink, connection, session, message_max_bytes, std::move(marks)), owner_(std::move(owner)) {}

    void take(std::size_t count, std::int64_t recv_ns, std::int64_t origin_ns) {
        recv_ns_ = recv_ns;
        origin_ns_ = origin_ns;
        reader.take(count, recv_ns, origin_ns, *this);
    }

    void odd(std::string_view bytes) {
        nb::gil_scoped_acquire gil;
        called = true;
        owner_.attr("odd")(bytes_of(bytes), recv_ns_, origin_ns_);
    }
    void message(std::string_view payload) {
        nb::gil_scoped_acquire gil;
        called = true;
        owner_.attr("message")(bytes_of(payload), recv_ns_, origin_ns_);
    }
    void lost(std::uint64_t count) {
        nb::gil_scoped_acquire gil;
        called = true;
        owner_.attr("lost")(count);
    }
    void broken(nb::object error) {
        called = true;
        owner_.attr("broken")(error);
    }
    bool pay() {
        nb::gil_scoped_acquire gil;
        called = true;
        return nb::cast<bool>(owner_.attr("pay")());
    }

    FrameReader reader;
    bool called = false;

    nb::object owner_;

private:
    std::int64_t recv_ns_ = 0;
    std::int64_t origin_ns_ = 0;
};

// A plain socket, read without the interpreter.
struct PlainSource : Source {
    explicit PlainSource(nb::object frames) : frames_(std::move(frames)), frames(nb::cast<Frames&>(frames_)) {}
    bool readable(int fd, std::uint64_t) override {
        const auto room = frames.reader.room();
        const ssize_t count = ::recv(fd, room.data(), room.size(), MSG_DONTWAIT);
        if (count < 0) return errno == EAGAIN || errno == EINTR;
        if (count == 0) return false;
        try {
            frames.take(static_cast<std::size_t>(count), unix_ns(), mono_ns());
            return true;
        } catch (nb::python_error& error) {  // the event loop must not see it: it would end with it
            nb::gil_scoped_acquire gil;
            frames.broken(nb::borrow(error.value()));
        } catch (const std::exception& error) {
            nb::gil_scoped_acquire gil;
            frames.broken(nb::module_::import_("lob._native").attr("CorruptRing")(error.what()));
        }
        return false;
    }
    bool called() override { return std::exchange(frames.called, false); }
    nb::object frames_;
    Frames& frames;
};

// A TLS socket. Only Python's ssl has its keys, so the bytes go through its two objects, but by calls from here: for a lone
// message Python's own byte code took as long as the decryption.
struct TlsSource : Source {
    // `read` decrypts what was written to `incoming`, a MemoryBIO. `is_closing`: asyncio sees to the rest itself. `ended`: called
    // with the error of TLS, or None when the other side has closed it.
    TlsSource(nb::object frames, nb::object incoming, nb::object read, nb::object is_closing, nb::object ended)
        : frames_(std::move(frames)),
          frames(nb::cast<Frames&>(frames_)),
          incoming_(std::move(incoming)),
          write_(incoming_.attr("write")),
          read_(std::move(read)),
          is_closing_(std::move(is_closing)),
          ended_(std::move(ended)),
          pending_(nb::steal<nb::str>(PyUnicode_InternFromString("pending"))),
          want_read_(nb::module_::import_("ssl").attr("SSLWantReadError")),
          ssl_error_(nb::module_::import_("ssl").attr("SSLError")),
          ciphertext_(std::make_unique_for_overwrite<char[]>(READ_BYTES)) {}

    bool readable(int fd, std::uint64_t turn) override {
        nb::gil_scoped_acquire gil;
        try {
            // Not after the read: what asyncio shall see must be left in the socket.
            if (turn != turn_ && nb::cast<bool>(is_closing_())) return false;
            turn_ = turn;
            const ssize_t count = ::recv(fd, ciphertext_.get(), READ_BYTES, MSG_DONTWAIT);
            if (count < 0) return errno == EAGAIN || errno == EINTR;
            if (count == 0) return false;
            const std::int64_t recv_ns = unix_ns(), origin_ns = mono_ns();
            write_(view(ciphertext_.get(), static_cast<std::size_t>(count), PyBUF_READ));
            return decrypt(recv_ns, origin_ns);
        } catch (nb::python_error& error) {
            frames.broken(nb::borrow(error.value()));
        } catch (const std::exception& error) {
            frames.broken(nb::module_::import_("lob._native").attr("CorruptRing")(error.what()));
        }
        return false;
    }
    bool called() override { return std::exchange(frames.called, false); }

private:
    // Larger than the 16 KiB of a TLS record, smaller than the second cache, which it shares with OpenSSL's copies.
    static constexpr std::size_t READ_BYTES = 1 << 18;

    static nb::object view(char* at, std::size_t size, int access) {
        return nb::steal(PyMemoryView_FromMemory(at, static_cast<Py_ssize_t>(size), access));
    }

    bool decrypt(std::int64_t recv_ns, std::int64_t origin_ns) {
        for (bool more = true; more;) {
            const auto room = frames.reader.room();
            std::size_t count = 0;
            try {
                count = nb::cast<std::size_t>(read_(room.size(), view(room.data(), room.size(), PyBUF_WRITE)));
            } catch (nb::python_error& error) {
                if (error.matches(want_read_)) return true;  // the rest of a TLS record is still to come
                if (!error.matches(ssl_error_)) throw;
                end(nb::borrow(error.value()));
                return false;
            }
            if (count == 0) {
                end(nb::none());
                return false;
            }
            frames.take(count, recv_ns, origin_ns);
            // A call that finds nothing raises, and that costs as much as a message. Within TLS itself something is left only
            // when it filled the room.
            more = count == room.size() || nb::cast<std::size_t>(incoming_.attr(pending_)) != 0;
        }
        return true;
    }

    void end(nb::object error) {
        frames.called = true;
        ended_(error);
    }

    nb::object frames_;
    Frames& frames;
    nb::object incoming_, write_, read_, is_closing_, ended_;
    nb::str pending_;
    nb::object want_read_, ssl_error_;
    std::uint64_t turn_ = 0;  // the last one in which is_closing() was asked
    std::unique_ptr<char[]> ciphertext_;
};

// The garbage collector sees the owner, which usually owns the reader.
int traverse_frames(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) Py_VISIT(nb::inst_ptr<Frames>(self)->owner_.ptr());
    return 0;
}
int clear_frames(PyObject* self) {
    nb::inst_ptr<Frames>(self)->owner_.reset();
    return 0;
}
PyType_Slot frames_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse_frames)},
                              {Py_tp_clear, reinterpret_cast<void*>(clear_frames)},
                              {0, nullptr}};

}  // namespace

NB_MODULE(_native, m) {
    nb::module_::import_("lob._native");  // the types of the rings
    m.def("trace_to", &lob::trace_to, "trace"_a.none(), "From now on trace points go there; None: nowhere.");
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

    nb::class_<RawSink>(m, "RawSink")
        .def("__init__", [](RawSink* at, SpscWriter<>& writer, std::uint64_t room_bytes) { new (at) RawSink{writer, room_bytes}; },
             "writer"_a, "room_bytes"_a, nb::keep_alive<1, 2>())
        .def_rw("owing", &RawSink::owing)
        .def_rw("copies", &RawSink::copies)
        .def_ro("frames", &RawSink::frames)
        .def_ro("payload_bytes", &RawSink::payload_bytes);

    nb::class_<Frames>(m, "FrameReader", nb::type_slots(frames_slots))
        .def(
            "__init__",
            [](Frames* at, nb::object owner, RawSink& sink, std::uint16_t connection, std::uint32_t session,
               std::uint64_t message_max_bytes, std::size_t mark_size_max, const std::vector<std::string>& marks) {
                new (at) Frames(std::move(owner), sink, connection, session, message_max_bytes, {mark_size_max, marks});
            },
            "owner"_a, "sink"_a, "connection"_a, "session"_a, "message_max_bytes"_a, "mark_size_max"_a = 0,
            "marks"_a = std::vector<std::string>{}, nb::keep_alive<1, 3>())
        .def(
            "feed",
            [](Frames& f, nb::bytes data, std::int64_t recv_ns, std::int64_t origin_ns) {
                for (std::string_view left{data.c_str(), data.size()}; !left.empty();) {
                    const auto room = f.reader.room();
                    const std::size_t now = std::min(room.size(), left.size());
                    std::memcpy(room.data(), left.data(), now);
                    left.remove_prefix(now);
                    f.take(now, recv_ns, origin_ns);
                }
            },
            "data"_a, "recv_ns"_a, "origin_ns"_a, "Bytes of the socket, however they were cut.")
        .def(
            "room",
            [](Frames& f) {
                const auto room = f.reader.room();
                return nb::steal(PyMemoryView_FromMemory(room.data(), static_cast<Py_ssize_t>(room.size()), PyBUF_WRITE));
            },
            nb::sig("def room(self) -> memoryview"), "Where bytes may be put for take(); valid until the next call of anything here.")
        .def("take", &Frames::take, "count"_a, "recv_ns"_a, "origin_ns"_a, "So many bytes have been put into room().")
        .def("stop", [](Frames& f) { f.reader.stop(); }, "From now on all bytes are odd: the protocol has ended the connection.")
        .def("rest", [](Frames& f) { return bytes_of(f.reader.rest()); }, "Gives up what is held of a frame that is not whole.")
        .def_prop_ro("last_ns", [](const Frames& f) { return f.reader.last_ns(); });

    nb::class_<Poller>(m, "Poller")
        .def(nb::init<bool>(), "busy"_a)
        .def("watch", &Poller::watch, "fd"_a, "events"_a)
        .def("forget", &Poller::forget, "fd"_a)
        .def(
            "read_frames",
            [](Poller& p, int fd, nb::object frames) { return p.divert(fd, std::make_shared<PlainSource>(std::move(frames))); },
            "fd"_a, "frames"_a, nb::sig("def read_frames(self, fd: int, frames: FrameReader) -> bool"),
            "From now on read fd here, as long as it is watched. False: it is not.")
        .def(
            "read_tls",
            [](Poller& p, int fd, nb::object frames, nb::object incoming, nb::object read, nb::object is_closing, nb::object ended) {
                return p.divert(fd, std::make_shared<TlsSource>(std::move(frames), std::move(incoming), std::move(read),
                                                                std::move(is_closing), std::move(ended)));
            },
            "fd"_a, "frames"_a, "incoming"_a, "read"_a, "is_closing"_a, "ended"_a,
            nb::sig("def read_tls(self, fd: int, frames: FrameReader, incoming: ssl.MemoryBIO, "
                    "read: collections.abc.Callable[[int, memoryview], int], "
                    "is_closing: collections.abc.Callable[[], bool], "
                    "ended: collections.abc.Callable[[ssl.SSLError | None], None]) -> bool"),
            "The same through `read` of a TLS object, which decrypts what is written to `incoming`, until is_closing() or TLS ends.")
        .def(
            "wait",
            [](Poller& p, double timeout_s) {
                std::vector<std::pair<int, unsigned>> ready;
                {
                    nb::gil_scoped_release release;
                    ready = p.wait(static_cast<std::int64_t>(std::min(timeout_s, 1.0) * 1e9));
                }
                p.bury();
                nb::list found;
                for (const auto& [fd, events] : ready) found.append(nb::make_tuple(fd, events));
                return found;
            },
            "timeout_s"_a, nb::sig("def wait(self, timeout_s: float) -> list[tuple[int, int]]"),
            "(fd, events) of those that are ready and not read here. Returns early, and empty, when Python code was called.")
        .def("close", [](Poller& p) {
            p.close();
            p.bury();
        });
}
