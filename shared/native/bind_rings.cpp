// bind_rings.cpp - the rings' writers and readers for Python; nothing is decided here.
//
// What a loop calls for each record (write, read, drain) are CPython's own methods, the rest nanobind's. As nanobind methods
// write took 14 ns more of some 40, read 3 (Python 3.11, nanobind 3.1, best of 200 runs of 2,000 calls, the three in turn).
//
// Views      claim() and peek() give a memoryview of the ring's own bytes. It ends at commit(), abort(), release():
//            after that it raises ValueError. Where something else still looks through it (a slice, a numpy array) those calls
//            raise BufferError and change nothing. A view holds the mapping: it never dangles.
#include "bind_rings.hpp"

#include <nanobind/stl/string.h>

#include <vector>

#include "broadcast.hpp"
#include "drain.hpp"
#include "raw.hpp"
#include "spsc.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace lob;

namespace {

constexpr std::int64_t MS = 1'000'000;

PyObject* corrupt_ring_type = nullptr;

// -- CPython's own methods ---------------------------------------------------------------------------------------

// Calls `body`; what it throws becomes what nanobind would make of it.
template <class Body>
PyObject* guarded(Body&& body) noexcept {
    try {
        return body();
    } catch (nb::python_error& error) {
        error.restore();
    } catch (const CorruptRing& error) {
        PyErr_SetString(corrupt_ring_type, error.what());
    } catch (const std::logic_error& error) {  // invalid_argument, length_error
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

template <class T>
T& self_of(PyObject* self) {
    if (!nb::inst_ready(self)) throw std::invalid_argument("its __init__ was not called, or failed");
    return *nb::inst_ptr<T>(self);
}

template <class T, PyObject* (*Body)(T&, PyObject*)>
PyObject* one_argument(PyObject* self, PyObject* argument) noexcept {
    return guarded([&] { return Body(self_of<T>(self), argument); });
}
template <class T, PyObject* (*Body)(T&)>
PyObject* no_argument(PyObject* self, PyObject*) noexcept {
    return guarded([&] { return Body(self_of<T>(self)); });
}
template <class T, PyObject* (*Body)(T&, PyObject* const*, Py_ssize_t)>
PyObject* some_arguments(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    return guarded([&] { return Body(self_of<T>(self), arguments, count); });
}

// The table must live as long as the type: static, at the caller's.
template <class Class>
void add_methods(Class& c, PyMethodDef* table) {
    for (PyMethodDef* method = table; method->ml_name != nullptr; ++method) {
        nb::object descriptor = nb::steal(PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(c.ptr()), method));
        if (!descriptor.is_valid()) nb::raise_python_error();
        nb::setattr(c, method->ml_name, descriptor);
    }
}
template <auto Function>
PyCFunction fastcall() {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(Function));
}

PyObject* boolean(bool value) { return PyBool_FromLong(value); }

// The bytes of whatever has some: bytes, bytearray, memoryview, an array that is contiguous.
class Bytes {
public:
    explicit Bytes(PyObject* from, int flags = PyBUF_SIMPLE) {
        if (flags == PyBUF_SIMPLE && PyBytes_CheckExact(from)) {  // 10 ns less than by its buffer
            data_ = PyBytes_AS_STRING(from);
            size_ = static_cast<std::size_t>(PyBytes_GET_SIZE(from));
            return;
        }
        if (PyObject_GetBuffer(from, &buffer_, flags) != 0) nb::raise_python_error();
        data_ = buffer_.buf;
        size_ = static_cast<std::size_t>(buffer_.len);
    }
    ~Bytes() {
        if (buffer_.obj != nullptr) PyBuffer_Release(&buffer_);
    }
    Bytes(Bytes&& other) noexcept : buffer_(other.buffer_), data_(other.data_), size_(other.size_) { other.buffer_.obj = nullptr; }
    Bytes(const Bytes&) = delete;
    void* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    Py_buffer buffer_{};
    void* data_ = nullptr;
    std::size_t size_ = 0;
};

// The pad's type is not for records: readers would pass over one of it and miss its number.
void has_type(std::uint16_t type) {
    if (type == static_cast<std::uint16_t>(RecordType::pad)) throw std::invalid_argument("a record of type 0: set the header's type");
}

// What a writer is given, checked.
std::uint32_t record_bytes(const Bytes& record, std::uint64_t most_bytes) {
    if (record.size() < sizeof(RecordHeader)) throw std::invalid_argument("a record is at least a header long");
    if (record.size() > most_bytes)
        throw std::length_error("a record of " + std::to_string(record.size()) + " bytes, this ring takes " + std::to_string(most_bytes));
    std::uint16_t type = 0;
    std::memcpy(&type, static_cast<const char*>(record.data()) + offsetof(RecordHeader, type), sizeof type);
    has_type(type);
    return static_cast<std::uint32_t>(record.size());
}

// -- views -------------------------------------------------------------------------------------------------------

// Gives out a piece of a segment, and counts who looks at it.
struct Piece {
    PyObject_HEAD
    PyObject* segment;
    void* data;
    Py_ssize_t size_bytes;
    Py_ssize_t looking;
    bool writable;
};

PyTypeObject* piece_type = nullptr;

int piece_get(PyObject* self, Py_buffer* buffer, int flags) {
    auto* piece = reinterpret_cast<Piece*>(self);
    if (PyBuffer_FillInfo(buffer, self, piece->data, piece->size_bytes, piece->writable ? 0 : 1, flags) != 0) return -1;
    ++piece->looking;
    return 0;
}
void piece_give_back(PyObject* self, Py_buffer*) { --reinterpret_cast<Piece*>(self)->looking; }
void piece_free(PyObject* self) {
    PyTypeObject* type = Py_TYPE(self);
    Py_XDECREF(reinterpret_cast<Piece*>(self)->segment);
    PyObject_Free(self);
    Py_DECREF(type);
}

void make_piece_type() {
    static PyType_Slot slots[] = {{Py_tp_dealloc, reinterpret_cast<void*>(piece_free)},
                                  {Py_bf_getbuffer, reinterpret_cast<void*>(piece_get)},
                                  {Py_bf_releasebuffer, reinterpret_cast<void*>(piece_give_back)},
                                  {0, nullptr}};
    static PyType_Spec spec = {"lob._native._Piece", sizeof(Piece), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    piece_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
    if (piece_type == nullptr) nb::raise_python_error();
}

// A memoryview of a piece of a segment, which ends when we say so.
class View {
public:
    View(nb::handle segment, void* data, std::size_t size_bytes, bool writable) {
        auto* piece = PyObject_New(Piece, piece_type);
        if (piece == nullptr) nb::raise_python_error();
        piece->segment = segment.inc_ref().ptr();
        piece->data = data;
        piece->size_bytes = static_cast<Py_ssize_t>(size_bytes);
        piece->looking = 0;
        piece->writable = writable;
        piece_ = nb::steal(reinterpret_cast<PyObject*>(piece));
        memory_ = nb::steal(PyMemoryView_FromObject(piece_.ptr()));
        if (!memory_.is_valid()) nb::raise_python_error();
    }
    nb::object get() const { return memory_; }

    // Raises BufferError if something else looks through it. Asked before release(), which ends a view that has slices:
    // they are views in their own right, of the same managed buffer.
    void may_end() const {
        const auto* memory = reinterpret_cast<const PyMemoryViewObject*>(memory_.ptr());
        const bool released = (memory->flags & _Py_MEMORYVIEW_RELEASED) != 0;  // by who holds it
        const bool slices = memory->mbuf->exports > (released ? 0 : 1);
        const bool others = reinterpret_cast<const Piece*>(piece_.ptr())->looking > (released ? 0 : 1);  // through its .obj
        if (memory->exports == 0 && !slices && !others) return;
        PyErr_SetString(PyExc_BufferError, "a slice or an array still looks at the record; release or delete it first");
        nb::raise_python_error();
    }
    void end() {
        may_end();
        static PyObject* const name = PyUnicode_InternFromString("release");
        if (!nb::steal(PyObject_CallMethodNoArgs(memory_.ptr(), name)).is_valid()) nb::raise_python_error();
    }

private:
    nb::object piece_;
    nb::object memory_;
};

// -- writers -----------------------------------------------------------------------------------------------------

class PySpscWriter : public SpscWriter<> {
public:
    PySpscWriter(Segment& segment, nb::object object) : SpscWriter<>(segment), segment_(std::move(object)) {}

    void nothing_claimed() const {
        if (!claims_.empty()) throw std::invalid_argument("a claimed record is neither committed nor aborted");
    }

    bool write_bytes(const Bytes& record) {
        nothing_claimed();
        RecordHeader* to = claim(record_bytes(record, record_max_bytes()));
        if (to == nullptr) return false;
        const Claim claimed(*to);
        std::memcpy(static_cast<void*>(to), record.data(), record.size());
        if (record.size() % 8 != 0) std::memset(reinterpret_cast<char*>(to) + record.size(), 0, 8 - record.size() % 8);
        claimed.seal();
        commit();
        return true;
    }

    nb::object claim_view(std::uint64_t size_bytes) {
        if (size_bytes < sizeof(RecordHeader)) throw std::invalid_argument("a record is at least a header long");
        if (!fits(size_bytes))
            throw std::length_error("a record of " + std::to_string(size_bytes) + " bytes, this ring takes " +
                                    std::to_string(record_max_bytes()));
        claims_.reserve(claims_.size() + 1);
        views_.reserve(views_.size() + 1);
        RecordHeader* to = claim(static_cast<std::uint32_t>(size_bytes));
        if (to == nullptr) return nb::none();
        claims_.emplace_back(*to);
        // Not what an older record left: a field that nobody sets is 0, as in a record that was built.
        std::memset(static_cast<void*>(to), 0, align8(static_cast<std::uint32_t>(size_bytes)));
        claims_.back().seal();
        views_.emplace_back(segment_, to, size_bytes, true);
        return views_.back().get();
    }
    void commit_claims(std::uint64_t raw_seq) {
        if (claims_.empty()) throw std::invalid_argument("nothing is claimed");
        for (const Claim& claim : claims_) has_type(claim.at->type);
        end_views();
        for (const Claim& claim : claims_) claim.seal();
        claims_.clear();
        commit(raw_seq);
    }
    void abort_claims() {
        end_views();
        claims_.clear();
        abort();
    }

private:
    // A record that was claimed, and what its writer must not change in it.
    struct Claim {
        explicit Claim(RecordHeader& record)
            : at(&record), size_bytes(record.size_bytes), epoch(record.epoch), ring_seq(record.ring_seq) {}
        void seal() const {
            at->size_bytes = size_bytes;
            at->ring_seq = ring_seq;
            at->epoch = epoch;
            if (at->raw_seq == 0) at->raw_seq = ring_seq;
        }
        RecordHeader* at;
        std::uint32_t size_bytes, epoch;
        std::uint64_t ring_seq;
    };
    void end_views() {
        for (const View& view : views_) view.may_end();  // all or none
        for (View& view : views_) view.end();
        views_.clear();
    }

    nb::object segment_;
    std::vector<Claim> claims_;
    std::vector<View> views_;
};

PyObject* spsc_write(PySpscWriter& writer, PyObject* record) { return boolean(writer.write_bytes(Bytes(record))); }

PyObject* broadcast_write(BroadcastWriter<>& writer, PyObject* object) {
    const Bytes record(object);
    const std::uint32_t size_bytes = record_bytes(record, writer.record_max_bytes());
    RecordHeader head;
    std::memcpy(&head, record.data(), sizeof head);
    head.size_bytes = size_bytes;
    if (!writer.write(head, static_cast<const char*>(record.data()) + sizeof head)) return boolean(false);
    writer.commit(head.raw_seq);
    return boolean(true);
}

// Writes a raw record in place. 0: written, 1: the ring is full, 2: larger than the ring takes.
int write_raw_record(PySpscWriter& writer, int type, int connection, std::uint32_t session, std::int64_t recv_ns,
                     std::int64_t origin_ns, nb::bytes url, nb::bytes payload) {
    writer.nothing_claimed();
    return static_cast<int>(write_raw(writer, static_cast<RecordType>(type), static_cast<std::uint16_t>(connection), session, recv_ns,
                                      origin_ns, {url.c_str(), url.size()}, {payload.c_str(), payload.size()}));
}

// -- readers -----------------------------------------------------------------------------------------------------

// A reader and the view of its next record, while that is looked at.
template <class Reader>
class PyReader : public Reader {
public:
    template <class... Arguments>
    explicit PyReader(nb::object object, Arguments&&... arguments)
        : Reader(std::forward<Arguments>(arguments)...), segment_(std::move(object)) {}

    void nothing_peeked() const {
        if (!views_.empty()) throw std::invalid_argument("the record of peek() is not released");
    }
    nb::object peek_view() {
        if constexpr (requires { Reader::in_place(); })
            if (!Reader::in_place())
                throw std::invalid_argument("only a registered reader of a ring under `wait` may look at records in place; use read()");
        if (views_.empty()) {
            record_ = Reader::peek();
            if (record_ == nullptr) {
                Reader::publish();
                return nb::none();
            }
            nb::object owner = segment_;
            const void* bytes = record_;
            if constexpr (requires { Reader::copied(*record_); })
                if (Reader::copied(*record_)) {  // of a time when the writer did not wait for us yet
                    owner = nb::bytes(record_, record_->size_bytes);
                    bytes = PyBytes_AS_STRING(owner.ptr());
                }
            views_.emplace_back(owner, const_cast<void*>(bytes), record_->size_bytes, false);
        }
        return views_.back().get();
    }
    void release_view() {
        if (views_.empty()) throw std::invalid_argument("nothing is peeked");
        views_.back().end();
        views_.clear();
        Reader::release(*record_);
    }

private:
    nb::object segment_;
    const RecordHeader* record_ = nullptr;
    std::vector<View> views_;  // one or none
};
using PySpscReader = PyReader<SpscReader<>>;
using PyBroadcastReader = PyReader<BroadcastReader<>>;

PyObject* copy_of(const RecordHeader& record) {
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(&record), record.size_bytes);
}

PyObject* spsc_read(PySpscReader& reader) {
    reader.nothing_peeked();
    const RecordHeader* record = reader.peek();
    if (record == nullptr) {
        reader.publish();
        return nb::none().release().ptr();
    }
    PyObject* copy = copy_of(*record);
    if (copy != nullptr) reader.release(*record);
    return copy;
}

PyObject* broadcast_read(PyBroadcastReader& reader) {
    reader.nothing_peeked();
    nb::object copy;
    const auto read = [&copy](const Word* from, std::uint64_t word, RecordWord record, std::uint64_t) {
        copy = nb::steal(PyBytes_FromStringAndSize(nullptr, record.size_bytes));
        if (!copy.is_valid()) nb::raise_python_error();
        char* to = PyBytes_AS_STRING(copy.ptr());
        std::memcpy(to, &word, 8);
        for (std::uint32_t at = 8; at < record.size_bytes; at += 8) {
            const std::uint64_t next = DefaultAtomics::load_word(from + at / 8);
            std::memcpy(to + at, &next, 8);
        }
        return true;
    };
    for (int laps = 0; laps < 2; ++laps) {
        const Read result = reader.read_by(read);
        if (result == Read::ok) return copy.release().ptr();
        if (result == Read::empty) break;
    }
    // Lapped again at once: the newest record is not whole either (its writer died, or is in the middle of more than a
    // ring). Nothing to read now.
    reader.publish();
    return nb::none().release().ptr();
}

std::uint64_t number(PyObject* from) {
    const std::uint64_t value = PyLong_AsUnsignedLongLong(from);
    if (value == ~0ull && PyErr_Occurred() != nullptr) nb::raise_python_error();
    return value;
}
template <class Reader>
PyObject* reader_drain(Reader& reader, PyObject* const* arguments, Py_ssize_t count) {
    constexpr std::size_t MOST = 16;
    reader.nothing_peeked();
    if (count == 0 || count % 2 != 0 || static_cast<std::size_t>(count) / 2 > MOST)
        throw std::invalid_argument("drain(type, array, ...) takes from 1 to " + std::to_string(MOST) + " pairs");
    std::vector<Bytes> buffers;
    std::vector<Rows> wanted;
    buffers.reserve(MOST);
    wanted.reserve(MOST);
    for (Py_ssize_t i = 0; i < count; i += 2) {
        const std::uint64_t type = number(arguments[i]);
        const std::size_t bytes = type <= 0xFFFF ? row_bytes(static_cast<std::uint16_t>(type)) : 0;
        if (bytes == 0) throw std::invalid_argument("there are no rows of records of type " + std::to_string(type));
        const Bytes& buffer = buffers.emplace_back(arguments[i + 1], PyBUF_WRITABLE);
        if (buffer.size() % bytes != 0)
            throw std::invalid_argument("an array of " + std::to_string(buffer.size()) + " bytes for rows of " + std::to_string(bytes));
        wanted.push_back({static_cast<std::uint16_t>(type), static_cast<std::byte*>(buffer.data()), bytes, buffer.size() / bytes});
    }
    nb::object result = nb::steal(PyTuple_New(2 + static_cast<Py_ssize_t>(wanted.size())));
    if (!result.is_valid()) nb::raise_python_error();
    const auto put = [&result](std::size_t at, std::uint64_t figure) {
        PyObject* object = PyLong_FromUnsignedLongLong(figure);
        if (object == nullptr) nb::raise_python_error();
        PyTuple_SET_ITEM(result.ptr(), static_cast<Py_ssize_t>(at), object);
    };
    const Batch batch = drain(reader, std::span(wanted));
    put(0, batch.passed);
    put(1, batch.epoch);
    for (std::size_t i = 0; i < wanted.size(); ++i) put(2 + i, wanted[i].count);
    return result.release().ptr();
}

constexpr const char* WRITE_DOC =
    "write(record, /)\n--\n\nWrite a whole record from anything that has contiguous bytes; size, ring_seq and epoch are filled in. "
    "False: there is no room (spsc: the ring is full; broadcast: a registered reader of a ring under `wait` has not made any).";
constexpr const char* DRAIN_DOC =
    "drain(type, array, *more, /)\n--\n\nCopy the next records of each type into its array, and pass over the others; type 0: the headers of "
    "all. Returns (records passed, their epoch, rows in the first array, in the second, ...). See drain.hpp for where a batch ends.";

template <class Reader>
PyMethodDef* reader_methods(PyCFunction read, const char* read_doc) {
    static PyMethodDef methods[] = {
        {"read", read, METH_NOARGS, read_doc},
        {"drain", fastcall<some_arguments<Reader, reader_drain<Reader>>>(), METH_FASTCALL, DRAIN_DOC},
        {nullptr, nullptr, 0, nullptr}};
    return methods;
}

template <class W, PyObject* (*Write)(W&, PyObject*)>
PyMethodDef* writer_methods() {
    static PyMethodDef methods[] = {{"write", one_argument<W, Write>, METH_O, WRITE_DOC}, {nullptr, nullptr, 0, nullptr}};
    return methods;
}

template <class W, class Class>
void bind_writer(Class& c) {
    c.def("take_over", &W::take_over, "pid"_a)
        .def("beat", &W::beat)
        .def("set_state", [](W& w, int state) { w.set_state(static_cast<RingState>(state)); })
        .def("drop", &W::drop)
        .def("take_dropped", &W::take_dropped)
        .def("fits", &W::fits, "size_bytes"_a)
        .def("wait_free",
             [](W& w, std::uint64_t size_bytes, const std::string& mode, int timeout_ms) {
                 const WaitMode parsed = wait_mode(mode);
                 nb::gil_scoped_release release;
                 return w.wait_free(size_bytes, parsed, timeout_ms * MS);
             },
             "size_bytes"_a, "mode"_a, "timeout_ms"_a)
        .def_prop_ro("next_seq", &W::next_seq)
        .def_prop_ro("raw_seq", &W::raw_seq)
        .def_prop_ro("epoch", &W::epoch)
        .def_prop_ro("record_max_bytes", &W::record_max_bytes)
        .def_prop_ro("free_bytes", &W::free_bytes);
}

template <class R, class Class>
void bind_reader(Class& c) {
    c.def("peek", &R::peek_view,
          "The next record in place, a read-only memoryview until release(); None if there is none. In a broadcast ring only for a "
          "registered reader of a ring under `wait`: others may be lapped.")
        .def("release", &R::release_view,
             "Done with the record of peek(), whose view ends. Raises BufferError if a slice or an array still looks at it.")
        .def("publish", &R::publish)
        .def("wait",
             [](R& r, const std::string& mode, int timeout_ms) {
                 const WaitMode parsed = wait_mode(mode);
                 nb::gil_scoped_release release;
                 return r.wait(parsed, timeout_ms * MS);
             },
             "mode"_a, "timeout_ms"_a)
        .def_prop_ro("drained", &R::drained)
        .def_prop_ro("state", [](const R& r) { return static_cast<int>(r.state()); })
        .def_prop_ro("epoch", &R::epoch)
        .def_prop_ro("silent_ns", &R::silent_ns);
}

}  // namespace

void lob::bind_rings(nb::module_& m, nb::handle corrupt_ring) {
    corrupt_ring_type = corrupt_ring.inc_ref().ptr();
    make_piece_type();
    m.attr("ANY_TYPE") = ANY_TYPE;
    m.attr("DRAIN_MAX") = DRAIN_MAX;

    // The other modules know the rings themselves, Python what is derived from them here.
    nb::class_<SpscWriter<>>(m, "_SpscWriter");
    nb::class_<PySpscWriter, SpscWriter<>> spsc_writer(m, "SpscWriter");
    spsc_writer.def(
        "__init__", [](PySpscWriter* self, nb::object segment) { new (self) PySpscWriter(nb::cast<Segment&>(segment), segment); },
        "segment"_a, nb::keep_alive<1, 2>());
    bind_writer<PySpscWriter>(spsc_writer);
    spsc_writer.def("write_raw", &write_raw_record, "type"_a, "connection"_a, "session"_a, "recv_ns"_a, "origin_ns"_a, "url"_a,
                    "payload"_a, "0: written, 1: the ring is full, 2: larger than the ring takes.");
    add_methods(spsc_writer, writer_methods<PySpscWriter, spsc_write>());
    spsc_writer
        .def("claim", &PySpscWriter::claim_view, "size_bytes"_a,
             "Room for a record in the ring itself, a writable memoryview of zeros until commit() or abort(); None if the ring is full. "
             "Several may be claimed. The header's size_bytes, ring_seq and epoch are filled in at the commit.")
        .def("commit", &PySpscWriter::commit_claims, "raw_seq"_a = 0,
             "Publish all that was claimed, at once; the views end. `raw_seq`: all events of that raw record are out now. Raises "
             "BufferError, and publishes nothing, if a slice or an array still looks at a claimed record.")
        .def("abort", &PySpscWriter::abort_claims, "Forget all that was claimed; the views end. Raises BufferError as commit does.");

    nb::class_<SpscReader<>>(m, "_SpscReader");
    nb::class_<PySpscReader, SpscReader<>> spsc_reader(m, "SpscReader");
    spsc_reader.def(
        "__init__", [](PySpscReader* self, nb::object segment) { new (self) PySpscReader(segment, nb::cast<Segment&>(segment)); },
        "segment"_a, nb::keep_alive<1, 2>());
    bind_reader<PySpscReader>(spsc_reader);
    add_methods(spsc_reader, reader_methods<PySpscReader>(no_argument<PySpscReader, spsc_read>,
                                                          "read()\n--\n\nThe next record as bytes, released at once; None if there is none."));

    nb::class_<BroadcastWriter<>> broadcast_writer(m, "BroadcastWriter");
    broadcast_writer.def(nb::init<Segment&>(), "segment"_a, nb::keep_alive<1, 2>());
    bind_writer<BroadcastWriter<>>(broadcast_writer);
    add_methods(broadcast_writer, writer_methods<BroadcastWriter<>, broadcast_write>());

    nb::class_<BroadcastReader<>>(m, "_BroadcastReader");
    nb::class_<PyBroadcastReader, BroadcastReader<>> broadcast_reader(m, "BroadcastReader");
    broadcast_reader.def(
        "__init__",
        [](PyBroadcastReader* self, nb::object segment, const std::string& from, std::uint32_t slot) {
            using From = BroadcastReader<>::From;
            auto where = From::newest;
            if (from == "oldest") where = From::oldest;
            else if (from == "slot") where = From::slot;
            else if (from != "newest") throw std::invalid_argument("start from oldest, newest or slot");
            new (self) PyBroadcastReader(segment, nb::cast<Segment&>(segment), where, slot);
        },
        "segment"_a, "start"_a, "slot"_a = READER_SLOTS, nb::keep_alive<1, 2>());
    bind_reader<PyBroadcastReader>(broadcast_reader);
    broadcast_reader
        .def("unregister",
             [](PyBroadcastReader& r) {
                 r.nothing_peeked();
                 r.unregister();
             })
        .def_prop_ro("lost", &PyBroadcastReader::lost)
        .def_prop_ro("laps", &PyBroadcastReader::laps)
        .def_prop_ro("seq", &PyBroadcastReader::seq);
    add_methods(broadcast_reader,
                reader_methods<PyBroadcastReader>(no_argument<PyBroadcastReader, broadcast_read>,
                                                  "read()\n--\n\nThe next record as bytes; None if there is none. `lost` rises when it was lapped."));
}
