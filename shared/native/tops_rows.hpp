// tops_rows.hpp - tops as Python sees them; shared by the extension modules that bind them.
#pragma once

#include <nanobind/nanobind.h>

#include "tops.hpp"

namespace lob {

inline nanobind::list top_rows(const Tops& tops) {
    nanobind::list rows;
    for (const auto& [id, top] : tops.all()) {
        const auto size = static_cast<Py_ssize_t>(top.symbol.size());
        nanobind::object symbol = nanobind::steal(PyUnicode_DecodeUTF8(top.symbol.data(), size, "replace"));
        rows.append(nanobind::make_tuple(symbol, top.state, top.reason, top.bid.price, top.bid.qty, top.ask.price,
                                         top.ask.qty, top.price_scale, top.qty_scale, top.updates, top.origin_ns,
                                         top.latency_ns));
    }
    return rows;
}

}  // namespace lob
