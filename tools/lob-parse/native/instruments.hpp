// instruments.hpp - (connection, symbol) -> id, scales, version; and how to take back what one raw record changed.
//
// Ids are indices: append-only, in order of appearance. All changes since begin() can be undone until keep(), so a
// raw record whose events did not fit into the ring is done again from the same state.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "layout.hpp"

namespace lob::parse {

struct Instrument {
    std::string symbol;
    std::uint16_t connection = NO_CONNECTION;
    std::uint16_t version = 1;
    std::uint8_t price_scale = 0;
    std::uint8_t qty_scale = 0;
    std::uint32_t depth = 0;
    std::uint32_t next = NO_INSTRUMENT;  // of the same symbol
    std::uint64_t raw_seq = 0;           // raw record that changed it last
    bool announced = false;              // its record of this version has gone out
};

struct Steps {
    std::uint8_t price_scale = 0;
    std::uint8_t qty_scale = 0;
    bool known = false;
};

class Instruments {
public:
    std::size_t size() const { return all_.size(); }
    Instrument& operator[](std::uint32_t id) { return all_[id]; }
    const Instrument& operator[](std::uint32_t id) const { return all_[id]; }

    // The first instrument of a symbol; walk on with Instrument::next.
    std::uint32_t first(std::string_view symbol) const {
        const auto found = by_symbol_.find(symbol);
        return found == by_symbol_.end() ? NO_INSTRUMENT : found->second;
    }
    std::uint32_t find(std::uint16_t connection, std::string_view symbol) const {
        // The same instrument as last time, most of the time.
        if (last_ < all_.size() && all_[last_].connection == connection && all_[last_].symbol == symbol) return last_;
        for (std::uint32_t id = first(symbol); id != NO_INSTRUMENT; id = all_[id].next)
            if (all_[id].connection == connection) return last_ = id;
        return NO_INSTRUMENT;
    }
    // Any instrument of the symbol, rather the one of this connection.
    std::uint32_t find_any(std::uint16_t connection, std::string_view symbol) const {
        const std::uint32_t own = find(connection, symbol);
        return own != NO_INSTRUMENT ? own : first(symbol);
    }

    std::uint32_t add(std::uint16_t connection, std::string_view symbol) {
        const auto id = static_cast<std::uint32_t>(all_.size());
        Instrument instrument;
        instrument.symbol = symbol;
        instrument.connection = connection;
        if (const auto steps = steps_.find(symbol); steps != steps_.end()) {
            instrument.price_scale = steps->second.price_scale;
            instrument.qty_scale = steps->second.qty_scale;
        }
        append(std::move(instrument));
        return id;
    }

    // Of a connection: found, taken over from NO_CONNECTION, or new.
    std::uint32_t of_connection(std::uint16_t connection, std::string_view symbol) {
        const std::uint32_t own = find(connection, symbol);
        if (own != NO_INSTRUMENT) return own;
        const std::uint32_t orphan = find(NO_CONNECTION, symbol);
        if (orphan == NO_INSTRUMENT) return add(connection, symbol);
        change(orphan).connection = connection;
        return orphan;
    }

    // For writing what the instrument's record tells: its version rises, and the record must go out again.
    Instrument& change(std::uint32_t id) {
        save(id);
        Instrument& instrument = all_[id];
        if (instrument.announced) ++instrument.version;
        instrument.announced = false;
        return instrument;
    }
    void announce(std::uint32_t id, std::uint64_t raw_seq) {
        save(id);
        all_[id].announced = true;
        all_[id].raw_seq = raw_seq;
        changed_ = true;
    }

    Steps& steps(std::string_view symbol) { return steps_[std::string(symbol)]; }

    void restore(Instrument instrument) { append(std::move(instrument)); }
    // The raw ring is another one: its numbers say nothing about these.
    void forget_raw_seqs() {
        for (Instrument& instrument : all_) instrument.raw_seq = 0;
    }

    // --- one raw record -----------------------------------------------------------------------------------------
    void begin() {
        undo_.clear();
        size_before_ = all_.size();
        changed_ = false;
    }
    bool changed() const { return changed_; }
    void roll_back() {
        for (auto entry = undo_.rbegin(); entry != undo_.rend(); ++entry) all_[entry->first] = std::move(entry->second);
        while (all_.size() > size_before_) {
            const auto id = static_cast<std::uint32_t>(all_.size() - 1);
            unlink(id);
            all_.pop_back();
        }
        begin();
    }

private:
    struct Hash {
        using is_transparent = void;
        std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
    };

    void append(Instrument instrument) {
        const auto id = static_cast<std::uint32_t>(all_.size());
        instrument.next = NO_INSTRUMENT;
        const auto [entry, fresh] = by_symbol_.try_emplace(instrument.symbol, id);
        if (!fresh) {
            std::uint32_t tail = entry->second;
            while (all_[tail].next != NO_INSTRUMENT) tail = all_[tail].next;
            save(tail);
            all_[tail].next = id;
        }
        all_.push_back(std::move(instrument));
    }
    void unlink(std::uint32_t id) {
        const auto entry = by_symbol_.find(all_[id].symbol);
        if (entry != by_symbol_.end() && entry->second == id) by_symbol_.erase(entry);
    }
    void save(std::uint32_t id) {
        if (id < size_before_) undo_.emplace_back(id, all_[id]);
    }

    std::vector<Instrument> all_;
    std::unordered_map<std::string, std::uint32_t, Hash, std::equal_to<>> by_symbol_;
    std::unordered_map<std::string, Steps, Hash, std::equal_to<>> steps_;
    std::vector<std::pair<std::uint32_t, Instrument>> undo_;
    std::size_t size_before_ = 0;
    mutable std::uint32_t last_ = NO_INSTRUMENT;
    bool changed_ = false;
};

}  // namespace lob::parse
