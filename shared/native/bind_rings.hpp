// bind_rings.hpp - the rings' writers and readers for Python.
#pragma once

#include <nanobind/nanobind.h>

namespace lob {

void bind_rings(nanobind::module_& m, nanobind::handle corrupt_ring);

}  // namespace lob
