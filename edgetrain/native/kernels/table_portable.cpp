#include "edgetrain/isa.hpp"
#include "isa/portable.hpp"
#include "table.hpp"

namespace edgetrain {

const Kernels& portable_kernels() {
  static constexpr Kernels table = make_table<Portable>();
  return table;
}

}  // namespace edgetrain
