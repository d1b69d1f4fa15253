// tops.hpp - the newest best prices and state of every instrument, as a stream of records tells them.
//
// For what shows or watches a stream (the live table, lob-publish). No book is kept: the best prices come from bbo
// records and from the first level a side of snapshots.
#pragma once

#include <map>
#include <string>

#include "ndjson.hpp"

namespace lob {

struct Top {
    std::string symbol;
    std::uint8_t state = 0;   // BookState
    std::uint8_t reason = 0;  // Reason
    std::uint8_t price_scale = 0;
    std::uint8_t qty_scale = 0;
    std::uint16_t version = 0;
    std::uint16_t connection = NO_CONNECTION;
    std::uint32_t session = 0;
    std::uint32_t epoch = 0;
    std::uint64_t last_seq = 0;
    Level bid{};
    Level ask{};
    std::uint64_t updates = 0;     // snapshots and diffs, refreshes not counted
    std::int64_t origin_ns = 0;    // CLOCK_MONOTONIC of the newest
    std::uint32_t latency_ns = 0;  // from there to the last stage that it passed
};

class Tops {
public:
    // Records whose instrument was never announced, or that are cut short, change nothing.
    void apply(const RecordHeader& record) {
        const auto type = static_cast<RecordType>(record.type);
        if (type == RecordType::instrument) return announce(record);
        const auto found = tops_.find(record.instrument);
        if (found == tops_.end()) return;
        Top& top = found->second;
        switch (type) {
            case RecordType::snapshot:
            case RecordType::diff: {
                const auto& body = body_of<BookBody>(record);
                top.last_seq = body.last_seq;
                if (type == RecordType::snapshot) {
                    const Level* levels = levels_of(record, body);
                    top.bid = body.bid_count != 0 ? levels[0] : Level{};
                    top.ask = body.ask_count != 0 ? levels[body.bid_count] : Level{};
                    top.version = record.version;
                }
                if ((record.flags & FLAG_REFRESH) != 0) break;
                ++top.updates;
                touch(top, record);
                break;
            }
            case RecordType::bbo: {
                const auto& body = body_of<BboBody>(record);
                top.bid = {body.bid_price, body.bid_qty};
                top.ask = {body.ask_price, body.ask_qty};
                touch(top, record);
                break;
            }
            case RecordType::status: {
                const auto& body = body_of<StatusBody>(record);
                top.state = body.state;
                top.reason = body.reason;
                break;
            }
            default: break;
        }
    }

    const std::map<std::uint32_t, Top>& all() const { return tops_; }

private:
    void announce(const RecordHeader& record) {
        const auto& body = body_of<InstrumentBody>(record);
        Top& top = tops_[record.instrument];
        const std::string symbol(text_of(body.symbol, sizeof body.symbol));
        if (top.symbol != symbol) top = Top{.symbol = symbol};
        if (top.price_scale != body.price_scale || top.qty_scale != body.qty_scale) top.bid = top.ask = {};
        top.price_scale = body.price_scale;
        top.qty_scale = body.qty_scale;
        top.version = record.version;
        top.connection = record.connection;
        top.session = record.session;
        top.epoch = record.epoch;
    }
    static void touch(Top& top, const RecordHeader& record) {
        if (record.origin_ns == 0) return;
        top.origin_ns = record.origin_ns;
        for (const std::uint32_t passed_ns : record.stage_ns)
            if (passed_ns != 0) top.latency_ns = passed_ns;
    }

    std::map<std::uint32_t, Top> tops_;  // by instrument id
};

}  // namespace lob
