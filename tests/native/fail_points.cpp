// fail_points.cpp - a process killed before and after every single store: what it leaves is what the proofs say.
//
//   fail_points           walks all points of all roles; each in a process of its own, exec'ed, so that addresses differ
//   fail_points ROLE RING_FD REPORT_FD     such a process; RING_KILL_AT says where it dies, or stops
#define LOB_FAIL_POINTS
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "broadcast.hpp"
#include "expect.hpp"
#include "fixed_queue.hpp"
#include "spsc.hpp"

using namespace lob;

namespace {

constexpr std::uint64_t CAPACITY = 4096;
constexpr std::uint64_t FIRST_POSITION = 5 * CAPACITY - 200;  // the second record does not fit before the end
constexpr std::uint64_t RECORDS = 12;

// What the child had done when it died.
struct Report {
    std::atomic<std::uint64_t> done;       // numbers up to here: committed, handled, posted or taken
    std::atomic<std::uint64_t> attempted;  // ... begun
};

std::uint64_t content(std::uint64_t seq, std::size_t word) { return seq * 0x9E3779B97F4A7C15ull + word; }
std::uint32_t size_of(std::uint64_t seq) { return static_cast<std::uint32_t>(80 + 8 * (seq * 5 % 16)); }

void fill(RecordHeader& record, std::uint64_t seq, std::uint32_t size) {
    record.type = static_cast<std::uint16_t>(RecordType::raw_frame);
    auto* words = reinterpret_cast<Word*>(&record + 1);
    for (std::size_t i = 0; i < (size - sizeof record) / 8; ++i) words[i] = content(seq, i);
}
void check(const RecordHeader& record, std::uint64_t seq) {
    EXPECT(record.ring_seq == seq && record.size_bytes == size_of(seq));
    const auto* words = reinterpret_cast<const Word*>(&record + 1);
    for (std::size_t i = 0; i < (record.size_bytes - sizeof record) / 8; ++i) EXPECT(words[i] == content(seq, i));
}

bool put(SpscWriter<>& writer) {
    const std::uint64_t seq = writer.next_seq();
    RecordHeader* record = writer.claim(size_of(seq));
    if (record == nullptr) return false;
    fill(*record, seq, size_of(seq));
    return true;
}
bool put(BroadcastWriter<>& writer) {
    alignas(8) std::byte bytes[256]{};
    auto& record = *reinterpret_cast<RecordHeader*>(bytes);
    record.size_bytes = size_of(writer.next_seq());
    fill(record, writer.next_seq(), record.size_bytes);
    return writer.write(record);
}

// An open file of its own, with the lock of an owner number: as shared/lob/rings.py takes it. The ring's file serves as its lock file.
class Number {
public:
    Number(int ring_fd, std::uint32_t owner) : owner(owner), fd_(open(("/proc/self/fd/" + std::to_string(ring_fd)).c_str(), O_RDWR)) {
        EXPECT(fd_ >= 0 && peers().take(owner));
    }
    ~Number() { close(fd_); }
    Number(const Number&) = delete;
    LockedPeers peers() const { return LockedPeers(fd_); }
    const std::uint32_t owner;

private:
    int fd_;
};
constexpr std::uint32_t OURS = 1, THE_CHILDS = 2;

// ---- the child ---------------------------------------------------------------------------------------------------------

template <class Writer>
void write_all(Segment& segment, Report& report) {
    Writer writer(segment);
    writer.take_over(1);
    while (writer.next_seq() <= RECORDS) {
        report.attempted = writer.next_seq() + 1;
        for (int i = 0; i < 2; ++i) EXPECT(put(writer));
        writer.commit(writer.next_seq() - 1);
        report.done = writer.next_seq() - 1;
    }
}

void child(const std::string& role, int ring_fd, Report& report) {
    Segment segment(ring_fd, true);
    if (role == "spsc-writer") write_all<SpscWriter<>>(segment, report);
    if (role == "broadcast-writer") write_all<BroadcastWriter<>>(segment, report);
    if (role == "spsc-reader") {
        SpscReader<> reader(segment);
        while (const RecordHeader* record = reader.peek()) {
            report.attempted = record->ring_seq;
            reader.release(*record);
            reader.publish();
            report.done = record->ring_seq;
        }
    }
    if (role == "broadcast-reader") {
        BroadcastReader<> reader(segment, BroadcastReader<>::From::slot, 0);
        std::vector<std::uint64_t> words;
        while (reader.read(words) == Read::ok) {
            report.attempted = reader.seq();
            reader.publish();
            report.done = reader.seq();
        }
    }
    const Number number(ring_fd, THE_CHILDS);
    RequestQueue<> queue(segment, number.peers(), number.owner);
    queue.adopt();
    Request request{};
    if (role == "producer")
        for (request.id = 1; request.id <= RECORDS; ++request.id) {
            report.attempted = request.id;
            EXPECT(queue.try_enqueue(request));
            report.done = request.id;
        }
    if (role == "consumer")
        while (queue.try_dequeue(request)) report.done = request.id;
}

// ---- the parent --------------------------------------------------------------------------------------------------------

int shared_file(std::uint64_t bytes) {
    const int fd = memfd_create("fail_points", 0);  // inherited by the child
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) std::abort();
    return fd;
}
Report& map_report(int fd) {
    void* memory = mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) std::abort();
    return *static_cast<Report*>(memory);
}

struct Stage {
    Stage(Kind kind, const char* role) : ring_fd(shared_file(Segment::size_for(CAPACITY))), report_fd(shared_file(4096)), role(role) {
        Segment::format(ring_fd, kind, Policy::wait, CAPACITY, 1, 0, 0, FIRST_POSITION);
        segment.emplace(ring_fd, true);
        report = &map_report(report_fd);
    }
    ~Stage() {
        munmap(report, sizeof(Report));
        close(ring_fd);
        close(report_fd);
    }
    // True if it died at the point; false if it never came there so often.
    bool run(int point, int pass) {
        const std::string at = "RING_KILL_AT=" + std::to_string(point) + ":" + std::to_string(pass);
        const pid_t pid = start(at);
        int status = 0;
        waitpid(pid, &status, 0);
        EXPECT((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
        return WIFSIGNALED(status);
    }
    // Its pid once it has stopped at the point.
    pid_t run_until(int point) {
        const pid_t pid = start("RING_KILL_AT=" + std::to_string(point) + ":1:stop");
        int status = 0;
        waitpid(pid, &status, WUNTRACED);
        EXPECT(WIFSTOPPED(status));
        return pid;
    }
    pid_t start(const std::string& at) {
        const std::string ring = std::to_string(ring_fd), out = std::to_string(report_fd);
        const pid_t pid = fork();
        if (pid == 0) {
            const char* arguments[] = {"fail_points", role, ring.c_str(), out.c_str(), nullptr};
            const char* environment[] = {at.c_str(), nullptr};
            execve("/proc/self/exe", const_cast<char**>(arguments), const_cast<char**>(environment));
            std::_Exit(127);
        }
        return pid;
    }
    int ring_fd, report_fd;
    const char* role;
    std::optional<Segment> segment;
    Report* report;
};

// Reads on from `seq`; the number of the last one.
std::uint64_t read_on(Stage& stage, std::uint64_t seq) {
    if (stage.segment->kind() == Kind::spsc) {
        SpscReader<> reader(*stage.segment);
        while (const RecordHeader* record = reader.peek()) {
            check(*record, ++seq);
            reader.release(*record);
        }
        reader.publish();
    } else {
        BroadcastReader<> reader(*stage.segment, BroadcastReader<>::From::slot, 0);
        std::vector<std::uint64_t> words;
        for (Read result; (result = reader.read(words)) != Read::empty;) {
            EXPECT(result == Read::ok);
            check(*reinterpret_cast<const RecordHeader*>(words.data()), ++seq);
        }
        reader.publish();
    }
    return seq;
}

template <class Writer>
bool writer_dies(Kind kind, const char* role, int point, int pass) {
    Stage stage(kind, role);
    const bool died = stage.run(point, pass);
    const std::uint64_t seq = read_on(stage, 0);
    const std::uint64_t done = stage.report->done;
    const bool at_commit = died && (point == 21 || point == 22);  // the tail is stored, commit() has not returned
    EXPECT(seq == (at_commit ? stage.report->attempted.load() : done));
    Writer next(*stage.segment);
    next.take_over(2);
    EXPECT(next.next_seq() == seq + 1 && next.raw_seq() == seq);
    for (int i = 0; i < 40; ++i) {  // more than a lap
        EXPECT(put(next));
        next.commit(next.next_seq() - 1);
        EXPECT(read_on(stage, next.next_seq() - 2) == next.next_seq() - 1);
    }
    return died;
}

template <class Writer>
bool reader_dies(Kind kind, const char* role, int point, int pass) {
    Stage stage(kind, role);
    Writer writer(*stage.segment);
    writer.take_over(1);
    while (writer.next_seq() <= RECORDS) EXPECT(put(writer));
    writer.commit();
    const bool died = stage.run(point, pass);
    const std::uint64_t handled = stage.report->attempted;
    // What it had not released comes again, under the number it had.
    const bool released = !died || point == 33;
    EXPECT(read_on(stage, released ? handled : handled == 0 ? 0 : handled - 1) == RECORDS);
    for (int i = 0; i < 40; ++i) {
        EXPECT(put(writer));
        writer.commit();
        EXPECT(read_on(stage, writer.next_seq() - 2) == writer.next_seq() - 1);
    }
    return died;
}

// `held`: slots in which somebody died.
void queue_is_whole_again(Stage& stage, const Number& number, std::uint64_t held) {
    usleep(2 * RequestQueue<>::GRACE_NS / 1000);
    RequestQueue<> queue(*stage.segment, number.peers(), number.owner);
    Request request{};
    EXPECT(!queue.try_dequeue(request));
    for (std::uint64_t n = 0; n < QUEUE_SLOTS; ++n) EXPECT(queue.try_enqueue(request));
    EXPECT(!queue.try_enqueue(request) && queue.damaged() == 0 && queue.recovered() == held);
}

bool producer_dies(Kind, const char* role, int point, int pass) {
    Stage stage(Kind::spsc, role);
    const bool died = stage.run(point, pass);
    const Number number(stage.ring_fd, OURS);
    RequestQueue<> queue(*stage.segment, number.peers(), number.owner);
    Request request{};
    std::uint64_t last = 0;
    while (queue.try_dequeue(request)) EXPECT(request.id == ++last);
    EXPECT(last == (died && point == 44 ? stage.report->attempted.load() : stage.report->done.load()));
    queue_is_whole_again(stage, number, died && point >= 41 && point <= 43);
    return died;
}

bool consumer_dies(Kind, const char* role, int point, int pass) {
    Stage stage(Kind::spsc, role);
    const Number number(stage.ring_fd, OURS);
    RequestQueue<> queue(*stage.segment, number.peers(), number.owner);
    Request request{};
    for (request.id = 1; request.id <= RECORDS; ++request.id) EXPECT(queue.try_enqueue(request));
    const bool died = stage.run(point, pass);
    // The one that it has taken out is gone with it, no other: not the one that it was taking.
    std::uint64_t last = stage.report->done + (died && point == 53 ? 1 : 0);
    while (queue.try_dequeue(request)) EXPECT(request.id == ++last);
    EXPECT(last == RECORDS);
    queue_is_whole_again(stage, number, died && (point == 51 || point == 52));
    return died;
}

// A producer that died in its slot, and another process takes its number before anybody looks: the slot is the dead one's.
bool number_is_inherited(Kind, const char* role, int point, int pass) {
    Stage stage(Kind::spsc, role);
    const bool died = stage.run(point, pass);
    const Number number(stage.ring_fd, THE_CHILDS);
    RequestQueue<> heir(*stage.segment, number.peers(), number.owner);
    heir.adopt();
    EXPECT(heir.recovered() == (died ? 1 : 0));
    Request request{};
    while (heir.try_dequeue(request)) {
    }
    for (std::uint64_t n = 0; n < QUEUE_SLOTS; ++n) EXPECT(heir.try_enqueue(request));
    return died;
}

// A stopped one holds its slot for as long as it likes; it goes on as if nothing had been. Killed while stopped, it is dead.
bool stopped_in_its_slot(Kind, const char* role, int point, int pass) {
    if (pass > 1) return false;
    for (const bool dies : {false, true}) {
        Stage stage(Kind::spsc, role);
        const Number number(stage.ring_fd, OURS);
        RequestQueue<> queue(*stage.segment, number.peers(), number.owner);
        Request request{};
        const bool consumes = point > 50;
        for (request.id = 1; consumes && request.id <= RECORDS; ++request.id) EXPECT(queue.try_enqueue(request));
        const pid_t pid = stage.run_until(point);
        usleep(2 * RequestQueue<>::GRACE_NS / 1000);
        request.id = 1000;
        const std::uint64_t room = QUEUE_SLOTS - (consumes ? RECORDS : 1);
        for (std::uint64_t n = 0; n < room; ++n) EXPECT(queue.try_enqueue(request));
        EXPECT(!queue.try_enqueue(request) && queue.recovered() == 0);
        EXPECT(queue.try_dequeue(request));  // ... and who passes it by finds the others
        EXPECT(request.id == (consumes ? 2 : 1000));
        kill(pid, dies ? SIGKILL : SIGCONT);
        if (dies) {
            waitpid(pid, nullptr, 0);
            EXPECT(queue.try_dequeue(request) && request.id == (consumes ? 1 : 1000) && queue.recovered() == 1);
        } else if (consumes) {
            waitpid(pid, nullptr, 0);
            EXPECT(stage.report->done > 0 && !queue.try_dequeue(request));
        } else {
            std::uint64_t taken = 0;
            for (std::uint64_t last = 0; taken < RECORDS;) {  // they come, one room after the other
                if (!queue.try_dequeue(request)) sched_yield();
                else if (request.id != 1000) EXPECT(request.id == ++last && ++taken);
            }
            waitpid(pid, nullptr, 0);
        }
        EXPECT(queue.damaged() == 0 && queue.recovered() == (dies ? 1 : 0));
    }
    return true;
}

struct DyingTest {
    const char* name;
    bool (*body)(Kind, const char*, int, int);
    Kind kind;
    const char* role;
    std::set<int> points;  // that must be reached
};
const DyingTest TESTS[] = {
    {"spsc writer", writer_dies<SpscWriter<>>, Kind::spsc, "spsc-writer",
     {1, 2, 3, 12, 13, 14, 15, 16, 17, 20, 21, 60, 61, 62, 63}},
    {"broadcast writer", writer_dies<BroadcastWriter<>>, Kind::broadcast, "broadcast-writer",
     {1, 2, 4, 10, 12, 13, 14, 15, 16, 17, 20, 21, 22, 60, 61, 62, 63}},
    {"spsc reader", reader_dies<SpscWriter<>>, Kind::spsc, "spsc-reader", {30, 31, 32, 33}},
    {"broadcast reader", reader_dies<BroadcastWriter<>>, Kind::broadcast, "broadcast-reader", {31, 32, 33, 34, 35}},
    {"producer", producer_dies, Kind::spsc, "producer", {40, 41, 42, 43, 44}},
    {"consumer", consumer_dies, Kind::spsc, "consumer", {50, 51, 52, 53}},
    {"number inherited", number_is_inherited, Kind::spsc, "producer", {41, 42, 43}},
    {"producer stopped", stopped_in_its_slot, Kind::spsc, "producer", {41, 42, 43}},
    {"consumer stopped", stopped_in_its_slot, Kind::spsc, "consumer", {51, 52}},
};

}  // namespace

int main(int argc, char** argv) {
    if (argc == 4) {
        try {
            child(argv[1], std::atoi(argv[2]), map_report(std::atoi(argv[3])));
        } catch (const std::exception& error) {
            std::fprintf(stderr, "fail_points: %s: %s\n", argv[1], error.what());
            return 1;
        }
        return 0;
    }
    int failed = 0, deaths = 0;
    for (const DyingTest& test : TESTS) {
        std::string text;
        for (const int point : test.points)
            for (int pass = 1; pass <= 7 && text.empty(); ++pass) {
                try {
                    const bool died = test.body(test.kind, test.role, point, pass);
                    deaths += died;
                    if (!died && pass == 1) throw Failed("nobody came there");
                    if (!died) break;
                } catch (const std::exception& error) {
                    text = "point " + std::to_string(point) + ", pass " + std::to_string(pass) + ": " + error.what();
                }
            }
        if (!text.empty()) std::printf("FAILED %s: %s\n", test.name, text.c_str());
        failed += !text.empty();
    }
    std::printf("ok     %d deaths at numbered points\n", deaths);
    std::printf("%d passed, %d failed\n", static_cast<int>(std::size(TESTS)) - failed, failed);
    return failed == 0 ? 0 : 1;
}
