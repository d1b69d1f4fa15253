// pump.hpp - from the book ring to the sinks: copies into public rings, formats NDJSON; once a record.
//
// A record goes to every text sink and every public ring before the next one is read, and it is released upstream
// only after the commit downstream: who is killed in between reads it again, and `skip` keeps it from being twice
// in a ring. One commit covers whole groups (a record and its FLAG_CONTINUED followers) and many of them when we
// are behind; when nothing more is there to read, it happens at once. (Only a reader far behind may see the commit
// fall inside a group.)
//
// Not here: what silence or a loss means, which sinks there are. Python decides.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "broadcast.hpp"
#include "clock.hpp"
#include "ndjson.hpp"
#include "stint.hpp"
#include "text_sink.hpp"
#include "tops.hpp"
#include "trace.hpp"
#include "work.hpp"

namespace lob::publish {

enum class Turn : std::uint8_t {
    idle = 0,     // nothing to read, in spite of waiting
    time = 1,     // the time is over
    blocked = 2,  // a sink that must be waited for has no room
    lost = 3,     // we were lapped: the record after the hole is held back until the next run()
    epoch = 4,    // the ring has a new owner: as with lost
};

class Pump {
public:
    explicit Pump(BroadcastReader<>& reader) : reader_(&reader), lost_(reader.lost()) {}

    // -- sinks --------------------------------------------------------------------------------------------------

    // Copies every record whose ring_seq is above `skip` into a public ring; its number.
    std::size_t add_ring(BroadcastWriter<>& writer, std::uint64_t skip) {
        rings_.push_back(Ring{&writer, skip, 0, 0, 0, false});
        return rings_.size() - 1;
    }
    void remove_ring(std::size_t index) { rings_.at(index).writer = nullptr; }
    struct Counts {
        std::uint64_t records;
        std::uint64_t bytes;
        std::uint64_t oversize;
    };
    Counts counts(std::size_t index) const {
        const Ring& ring = rings_.at(index);
        return {ring.records, ring.bytes, ring.oversize};
    }
    // Every record as a line; its number.
    std::size_t add_text(TextSink& sink) {
        texts_.push_back(&sink);
        return texts_.size() - 1;
    }
    void remove_text(std::size_t index) { texts_.at(index) = nullptr; }
    // Every record to the workers of this desk.
    void set_desk(Desk& desk) { desk_ = &desk; }

    // -- the work -----------------------------------------------------------------------------------------------

    // Another ring in the place of the old one. Its numbers begin anew: nothing of it has gone out.
    void set_reader(BroadcastReader<>& reader) {
        reader_ = &reader;
        lost_ = reader.lost();
        held_ = false;
        for (Ring& ring : rings_) ring.skip = 0;
    }

    // A record of our own for all sinks, before whatever is read next.
    void inject(const RecordHeader& record) {
        const auto* words = reinterpret_cast<const std::uint64_t*>(&record);
        injected_.emplace_back(words, words + record.size_bytes / 8);
    }
    // Learns an instrument without telling the sinks, unless the stream has announced it already.
    void learn(RecordHeader& record) {
        record.epoch = told_epoch_;
        if (ndjson_.knows(record)) return;
        ndjson_.learn(record);
        remember(record);
        if (desk_ != nullptr) desk_->announce(record);
        tops_.apply(record);
    }
    // Leaves a hole of `count` in the numbers of the public rings: their readers learn that records are missing.
    void skip_numbers(std::uint64_t count) {
        flush();
        for (Ring& ring : rings_)
            if (ring.writer != nullptr)
                for (std::uint64_t i = 0; i < count; ++i) ring.writer->drop();
    }
    // After the next snapshot of each of these instruments comes a status that calls its book live.
    void await_snapshot(std::uint32_t instrument) { awaited_.insert(instrument); }
    void await_nothing() { awaited_.clear(); }

    // Works for at most `stint_ms`, less if nothing comes for `idle_ms`; what made it come back.
    Turn run(WaitMode wait, int stint_ms, int idle_ms) {
        Stint stint(stint_ms * MS);
        const auto beat = [&](std::int64_t now_ns) {
            for (const Ring& ring : rings_)
                if (ring.writer != nullptr) Stint::beat(*ring.writer, now_ns);
            return false;  // what subscribers ask for is not ours to give
        };
        bool waited = false;
        for (std::uint32_t turn = 1;; ++turn) {
            if (!deliver_waiting()) return block(wait, stint.left_ns());
            if (desk_ != nullptr && !desk_->room()) return wait_for_workers(wait, stint.left_ns());
            if ((waited || stint.due(turn)) && stint.over(beat)) return come_back(Turn::time);
            waited = false;
            if (unreleased_bytes_ >= RELEASE_BYTES) flush();
            record_begin_ = reader_->position();
            const Read read = reader_->read(words_);
            if (read == Read::lapped) continue;
            if (read == Read::empty) {
                flush();
                const std::int64_t wait_ns = std::min(stint.left_ns(), idle_ms * MS);
                const auto news = [&] { return desk_ != nullptr && desk_->news(); };
                if (wait_ns <= 0 || !reader_->wait(wait, wait_ns, news)) return Turn::idle;
                waited = true;
                continue;
            }
            const auto& record = *reinterpret_cast<const RecordHeader*>(words_.data());
            trace_point(Point::publish_start, traced_seq(record));
            ++records_;
            stint.did(record.size_bytes);
            held_ = true;
            step_ = 0;
            record_seq_ = record.ring_seq;
            if (told_epoch_ != 0 && told_epoch_ != record.epoch) return come_back(Turn::epoch);
            if (reader_->lost() != lost_) return come_back(Turn::lost);
        }
    }

    // Publishes what was written and tells upstream how far we are.
    void flush() {
        show_all();
        if (desk_ != nullptr) {
            const auto [position, seq] = desk_->needed();
            reader_->hold(position, seq);
        }
        // The record held back has been read, but is in no sink yet: upstream keeps it until it is.
        if (held_) return;
        unreleased_bytes_ = 0;
        reader_->publish();
    }

    // Records missing since the last call.
    std::uint64_t take_lost() {
        const std::uint64_t lost = reader_->lost() - lost_;
        lost_ = reader_->lost();
        return lost;
    }
    // Whether a record was read or made that is not in every sink yet.
    bool pending() const { return held_ || !injected_.empty() || (desk_ != nullptr && !desk_->idle()); }
    bool drained() const { return !pending() && reader_->drained(); }
    std::uint64_t records() const { return records_; }
    std::uint64_t refused() const { return ndjson_.refused(); }
    const Tops& tops() const { return tops_; }
    // The newest record of each instrument; `instruments_version` rises when one comes or changes.
    const std::map<std::uint32_t, std::vector<std::uint64_t>>& instruments() const { return instruments_; }
    std::uint64_t instruments_version() const { return instruments_version_; }

private:
    static constexpr std::int64_t MS = 1'000'000;
    static constexpr std::int64_t WAIT_NS = 50 * MS;
    static constexpr std::uint64_t COMMIT_BYTES = 64 << 10;    // when far behind: commit between groups
    static constexpr std::uint64_t RELEASE_BYTES = 1 << 20;    // ... and here also inside one, so that upstream may go on

    struct Ring {
        BroadcastWriter<>* writer;  // null: removed
        std::uint64_t skip;         // records up to this one are in it already
        std::uint64_t records;
        std::uint64_t bytes;
        std::uint64_t oversize;
        bool dirty;
        std::uint64_t source_seq = 0;  // of the newest record written; what a successor skips
    };

    Turn come_back(Turn turn) {
        flush();
        return turn;
    }

    // What is injected, then the record that was read. False: a sink has no room.
    bool deliver_waiting() {
        while (!injected_.empty()) {
            auto& record = *reinterpret_cast<RecordHeader*>(injected_.front().data());
            if (injected_step_ == 0) record.epoch = told_epoch_;
            if (!deliver(record, injected_text_, injected_step_, 0)) return false;
            injected_.pop_front();
            injected_step_ = 0;
        }
        if (!held_) return true;
        auto& record = *reinterpret_cast<RecordHeader*>(words_.data());
        if (step_ == 0) {
            told_epoch_ = record.epoch;
            if (uncommitted_bytes_ >= COMMIT_BYTES && (record.flags & FLAG_CONTINUED) == 0) commit_all();
        }
        if (!deliver(record, text_, step_, record_seq_)) return false;
        held_ = false;
        if (tracing()) uncommitted_raw_seqs_.push_back(traced_seq(record));
        uncommitted_bytes_ += record.size_bytes;
        unreleased_bytes_ += record.size_bytes;
        if (static_cast<RecordType>(record.type) == RecordType::snapshot && !awaited_.empty() &&
            awaited_.erase(record.instrument) != 0)
            inject(live_status(record));
        return injected_.empty() || deliver_waiting();
    }

    // Step 0 is the line and what we remember; then the text sinks, then the rings. Goes on where it was blocked.
    bool deliver(RecordHeader& record, TextBuffer& line, std::size_t& step, std::uint64_t source_seq) {
        if (step == 0) {
            if (!texts_.empty()) {
                line.clear();
                // Where it is to lie, if it is for one alone: several would have to keep each other's buffers.
                if (texts_.size() == 1 && texts_[0] != nullptr) line.begin(texts_[0]->room());
                ndjson_.format(record, line);
            } else if (static_cast<RecordType>(record.type) == RecordType::instrument) {
                ndjson_.learn(record);
            }
            if (static_cast<RecordType>(record.type) == RecordType::instrument) {
                remember(record);
                if (desk_ != nullptr) desk_->announce(record);
            }
            if (desk_ != nullptr && source_seq != 0) desk_->add(record_begin_, reader_->position(), source_seq, record.epoch);
            if (desk_ != nullptr && source_seq == 0) desk_->add_record(record);
            tops_.apply(record);
            if (record.origin_ns != 0) record.stage_ns[3] = stage_stamp(record.origin_ns, mono_ns());
            if (source_seq != 0) measure(Stage::publish, record);
            step = 1;
        }
        for (; step <= texts_.size(); ++step)
            if (texts_[step - 1] != nullptr && !texts_[step - 1]->put(line.view())) return false;
        for (; step <= texts_.size() + rings_.size(); ++step)
            if (!copy(record, rings_[step - texts_.size() - 1], source_seq)) return false;
        return true;
    }

    bool copy(RecordHeader& record, Ring& ring, std::uint64_t source_seq) {
        if (ring.writer == nullptr || (source_seq != 0 && source_seq <= ring.skip)) return true;
        if (!ring.writer->fits(record.size_bytes)) {
            ring.writer->drop();
            ++ring.oversize;
            return true;
        }
        if (!ring.writer->write(record)) return false;
        if (source_seq != 0) ring.source_seq = source_seq;
        ring.dirty = true;
        ++ring.records;
        ring.bytes += record.size_bytes;
        return true;
    }

    static void commit(Ring& ring) {
        if (ring.writer == nullptr || !ring.dirty) return;
        ring.writer->commit(ring.source_seq);
        ring.dirty = false;
    }
    void show_all() {
        for (TextSink* sink : texts_)
            if (sink != nullptr) sink->flush();
        if (desk_ != nullptr) desk_->flush();
        commit_all();
    }
    void commit_all() {
        for (const std::uint64_t raw_seq : uncommitted_raw_seqs_) trace_point(Point::publish_end, raw_seq);
        uncommitted_raw_seqs_.clear();
        for (Ring& ring : rings_) commit(ring);
        uncommitted_bytes_ = 0;
    }

    // A sink under `wait` is full: its readers must see what we wrote, then we wait for them.
    Turn block(WaitMode wait, std::int64_t left_ns) {
        show_all();
        const std::size_t step = injected_.empty() ? step_ : injected_step_;
        const std::uint32_t size = injected_.empty() ? reinterpret_cast<RecordHeader*>(words_.data())->size_bytes
                                                     : static_cast<std::uint32_t>(injected_.front().size() * 8);
        const std::int64_t wait_ns = std::min(left_ns, WAIT_NS);
        if (step == 0 || wait_ns <= 0) return Turn::blocked;
        const std::size_t sink = step - 1;
        if (sink < texts_.size()) {
            if (texts_[sink] != nullptr) texts_[sink]->wait_room(wait_ns);
        } else if (auto* writer = rings_[sink - texts_.size()].writer; writer != nullptr) {
            writer->wait_free(size, wait, wait_ns);
        }
        return Turn::blocked;
    }

    // The ring is held up by batches that are not done.
    Turn wait_for_workers(WaitMode wait, std::int64_t left_ns) {
        flush();
        const std::int64_t wait_ns = std::min(left_ns, WAIT_NS);
        if (wait_ns > 0 && !desk_->room()) desk_->wait_news(wait, wait_ns);
        return Turn::blocked;
    }

    void remember(const RecordHeader& record) {
        const auto* words = reinterpret_cast<const std::uint64_t*>(&record);
        std::vector<std::uint64_t> copy(words, words + record.size_bytes / 8);
        auto& known = instruments_[record.instrument];
        const bool same = known.size() == copy.size() && !known.empty() &&
                          std::memcmp(known.data() + sizeof(RecordHeader) / 8, copy.data() + sizeof(RecordHeader) / 8,
                                      copy.size() * 8 - sizeof(RecordHeader)) == 0 &&
                          reinterpret_cast<const RecordHeader*>(known.data())->version == record.version;
        if (!same) ++instruments_version_;
        known = std::move(copy);
    }

    // A snapshot repeated for late readers carries the number of a message that is long past.
    static std::uint64_t traced_seq(const RecordHeader& record) {
        return (record.flags & FLAG_REFRESH) != 0 ? 0 : record.raw_seq;
    }

    struct Status {
        RecordHeader header;
        StatusBody body;
    };
    const RecordHeader& live_status(const RecordHeader& snapshot) {
        live_ = {};
        live_.header = snapshot;
        live_.header.size_bytes = sizeof(Status);
        live_.header.type = static_cast<std::uint16_t>(RecordType::status);
        live_.header.flags = 0;
        live_.header.ring_seq = live_.header.raw_seq = 0;  // ours: it comes from no raw record
        live_.body.last_seq = body_of<BookBody>(snapshot).last_seq;
        live_.body.state = static_cast<std::uint8_t>(BookState::live);
        return live_.header;
    }

    BroadcastReader<>* reader_;
    std::vector<Ring> rings_;
    std::vector<std::uint64_t> words_;  // the record that was read last
    bool held_ = false;                 // ... is not in every sink yet
    std::size_t step_ = 0;
    std::uint64_t record_begin_ = 0;  // where it was read, with the pad before it
    std::uint64_t record_seq_ = 0;  // its number upstream: writers put their own into the record
    std::deque<std::vector<std::uint64_t>> injected_;
    std::size_t injected_step_ = 0;
    std::vector<TextSink*> texts_;  // null: removed
    Desk* desk_ = nullptr;
    Ndjson ndjson_;
    TextBuffer text_, injected_text_;  // the line of the record that is being delivered, until every sink has it
    Tops tops_;
    std::map<std::uint32_t, std::vector<std::uint64_t>> instruments_;
    std::uint64_t instruments_version_ = 0;
    std::set<std::uint32_t> awaited_;
    Status live_{};
    std::uint64_t uncommitted_bytes_ = 0;
    std::vector<std::uint64_t> uncommitted_raw_seqs_;  // of records not yet committed; only while trace points are on
    std::uint64_t records_ = 0;
    std::uint64_t lost_;
    std::uint64_t unreleased_bytes_ = 0;
    std::uint32_t told_epoch_ = 0;  // of the last record from upstream that went to the sinks; 0: none yet
};

}  // namespace lob::publish
