#include "table.hpp"

#include "edgetrain/isa.hpp"
#include "isa/portable.hpp"

namespace edgetrain {

const Kernels& portable_kernels() {
  static constexpr Kernels table = make_table<Portable>();
  return table;
}

}  // namespace edgetrain
