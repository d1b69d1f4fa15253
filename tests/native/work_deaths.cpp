// work_deaths.cpp - a worker of lob-publish killed before and after every store and write: its successor leaves each line once.
//
//   work_deaths           walks all points; each in a process of its own, exec'ed, so that addresses differ
//   work_deaths WORK_FD RING_FD FILE_FD STDOUT_FD     such a process; RING_KILL_AT says where it dies
#define LOB_FAIL_POINTS
#include "../../tools/lob-publish/native/work.hpp"

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

using namespace lob;
using namespace lob::publish;

namespace {

constexpr std::uint64_t CAPACITY = 1 << 16;
constexpr std::uint64_t RECORDS = 240;
constexpr std::uint64_t BATCH_RECORDS = 60;
constexpr std::uint64_t OURS = 1;  // a record that is in no ring, behind the others

struct Failed : std::runtime_error {
    using std::runtime_error::runtime_error;
};
#define EXPECT(condition) \
    if (!(condition)) throw Failed(std::string(#condition) + " is false, line " + std::to_string(__LINE__))

struct Instrument {
    RecordHeader header;
    InstrumentBody body;
};
struct Status {
    RecordHeader header;
    StatusBody body;
};

template <class Record>
Record made(RecordType type) {
    Record record{};
    record.header.size_bytes = sizeof record;
    record.header.type = static_cast<std::uint16_t>(type);
    record.header.version = 1;
    return record;
}

int work(char** fds) {
    Segment ring(std::atoi(fds[1]), true);
    Worker worker(std::atoi(fds[0]), 1, ring, {std::atoi(fds[2]), std::atoi(fds[3])}, 1);
    while (worker.run(WaitMode::yield, 1000) != WorkTurn::stop) {
    }
    return 0;
}

int memory_file(int flags = 0) {
    const int fd = memfd_create("work_deaths", 0);  // inherited by the child
    if (fd < 0 || fcntl(fd, F_SETFL, flags) != 0) std::abort();
    return fd;
}

// True if it died at the point; false if it never came there so often.
bool run(const std::vector<int>& fds, const std::string& kill_at) {
    std::vector<std::string> words{"work_deaths"};
    for (const int fd : fds) words.push_back(std::to_string(fd));
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    std::string setting = "RING_KILL_AT=" + kill_at;
    char* environment[] = {setting.data(), nullptr};
    const pid_t pid = fork();
    if (pid == 0) {
        execve("/proc/self/exe", arguments.data(), environment);
        std::_Exit(127);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return WIFSIGNALED(status);
}

std::vector<std::string> lines_of(int fd) {
    std::string text(static_cast<std::size_t>(lseek(fd, 0, SEEK_END)), '\0');
    EXPECT(pread(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        EXPECT(end != std::string::npos);
        lines.push_back(text.substr(at, end - at));
        EXPECT(lines.back().front() == '{' && lines.back().back() == '}' && lines.back().find('{', 1) == std::string::npos);
        at = end + 1;
    }
    return lines;
}

bool worker_dies(int point, int pass) {
    const int ring_fd = memory_file(), work_fd = memory_file(), file_fd = memory_file(O_APPEND), stdout_fd = memory_file(O_APPEND);
    if (ftruncate(ring_fd, static_cast<off_t>(Segment::size_for(CAPACITY))) != 0) std::abort();
    Segment::format(ring_fd, Kind::broadcast, Policy::drop, CAPACITY, 1, 0, 0, 5 * CAPACITY - 1000);
    bool died = false;
    {
        Segment ring(ring_fd, true);
        BroadcastWriter<> writer(ring);
        writer.take_over(1);
        Instrument instrument = made<Instrument>(RecordType::instrument);
        std::strcpy(instrument.body.symbol, "COIN");
        writer.write(instrument.header);
        Status status = made<Status>(RecordType::status);
        while (writer.next_seq() <= RECORDS) {
            status.body.last_seq = writer.next_seq();
            writer.write(status.header);
        }
        writer.commit();

        Desk desk(work_fd, ring);
        BroadcastReader<> reader(ring, BroadcastReader<>::From::oldest, READER_SLOTS);
        std::vector<std::uint64_t> words;
        for (std::uint64_t begin = reader.position(); reader.read(words) == Read::ok; begin = reader.position()) {
            const auto& record = *reinterpret_cast<const RecordHeader*>(words.data());
            if (record.ring_seq == 1) desk.announce(record);
            desk.add(begin, reader.position(), record.ring_seq, record.epoch);
            if (record.ring_seq % BATCH_RECORDS == 0) desk.flush();
        }
        status.body.last_seq = 10'000;
        status.header.epoch = writer.epoch();
        status.header.ring_seq = 0;
        desk.add_record(status.header);
        desk.flush();
        desk.stop();
        const std::vector<int> fds{work_fd, ring_fd, file_fd, stdout_fd};
        died = run(fds, std::to_string(point) + ":" + std::to_string(pass));
        run(fds, "0");
        desk.flush();
        EXPECT(desk.idle() && desk.lost() == 0);
        for (const std::uint32_t part : {0, 1}) EXPECT(desk.counts(part).lines == RECORDS + OURS && desk.counts(part).error == 0);
    }
    const auto file = lines_of(file_fd), out = lines_of(stdout_fd);
    const std::set<std::string> each(file.begin(), file.end());
    EXPECT(file.size() == RECORDS + OURS && each.size() == file.size());
    EXPECT(std::set<std::string>(out.begin(), out.end()) == each);
    std::size_t twice_bytes = 0;
    std::set<std::string> seen;
    for (const std::string& line : out) twice_bytes += seen.insert(line).second ? 0 : line.size() + 1;
    EXPECT(twice_bytes <= PIPE_BUF && (twice_bytes == 0 || point == 77 || point == 70));
    for (const int fd : {ring_fd, work_fd, file_fd, stdout_fd}) close(fd);
    return died;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 5) {
        try {
            return work(argv + 1);
        } catch (const std::exception& error) {
            std::fprintf(stderr, "work_deaths: %s\n", error.what());
            return 1;
        }
    }
    int failed = 0, deaths = 0, points = 0;
    for (const int point : {50, 51, 52, 53, 70, 71, 72, 73, 74, 75, 76, 77}) {
        ++points;
        std::string text;
        for (int pass = 1; pass <= 15 && text.empty(); ++pass) {
            try {
                const bool died = worker_dies(point, pass);
                deaths += died;
                if (!died && pass == 1) throw Failed("nobody came there");
                if (!died) break;
            } catch (const std::exception& error) {
                text = "pass " + std::to_string(pass) + ": " + error.what();
            }
        }
        if (!text.empty()) std::printf("FAILED point %d, %s\n", point, text.c_str());
        failed += !text.empty();
    }
    std::printf("ok     %d deaths of workers at numbered points\n", deaths);
    std::printf("%d passed, %d failed\n", points - failed, failed);
    return failed == 0 ? 0 : 1;
}
