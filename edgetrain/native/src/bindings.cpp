// The Python face of the engine: buffers in, buffers out, the GIL released while it computes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <mutex>
#include <numeric>
#include <stdexcept>

#include "edgetrain/engine.hpp"
#include "edgetrain/isa.hpp"
#include "edgetrain/limits.hpp"
#include "edgetrain/update_codec.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// A view of any object that holds contiguous bytes, for as long as this lives.
class Buffer {
 public:
  explicit Buffer(nb::handle object, bool writable = false) {
    const int flags = writable ? PyBUF_WRITABLE : PyBUF_SIMPLE;
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) {
      throw nb::python_error();
    }
  }
  ~Buffer() { PyBuffer_Release(&view_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  template <class T>
  const T* as() const {
    return static_cast<const T*>(view_.buf);
  }
  std::size_t bytes() const { return static_cast<std::size_t>(view_.len); }

 private:
  Py_buffer view_{};
};

edgetrain::Program read_program(const nb::bytes& words) {
  if (words.size() % sizeof(std::int64_t) != 0) {
    throw std::invalid_argument("the plan is damaged: it is not made of 64-bit words");
  }
  std::vector<std::int64_t> copy(words.size() / sizeof(std::int64_t));
  std::memcpy(copy.data(), words.c_str(), words.size());
  return edgetrain::parse_program(copy.data(), copy.size());
}

class BoundEngine {
 public:
  BoundEngine(const nb::bytes& program, std::uint64_t seed, const std::string& isa)
      : engine_(read_program(program), seed, isa) {}

  std::pair<double, std::size_t> train(nb::handle features, bool is_signed, nb::handle labels,
                                       nb::handle indices, std::uint64_t step,
                                       std::uint32_t latent_step, std::uint32_t scale_step,
                                       double statistics_momentum, double shift_learning_rate,
                                       double correction1, double correction2,
                                       std::uint32_t held_step, std::int32_t threshold) {
    const edgetrain::StepSettings settings = {step,
                                              latent_step,
                                              scale_step,
                                              statistics_momentum,
                                              {shift_learning_rate, correction1, correction2},
                                              held_step,
                                              threshold};
    return run(features, is_signed, labels, indices, [&](const edgetrain::Examples& examples) {
      return engine_.train(examples, settings);
    });
  }

  std::pair<double, std::size_t> evaluate(nb::handle features, bool is_signed, nb::handle labels,
                                          nb::handle indices) {
    return run(features, is_signed, labels, indices,
               [&](const edgetrain::Examples& examples) { return engine_.evaluate(examples); });
  }

  // A step of no size, and the nanoseconds of every layer's phases as 64-bit numbers.
  nb::bytes profile(nb::handle features, bool is_signed, nb::handle labels, nb::handle indices) {
    edgetrain::Profile profile(engine_.program().blocks.size());
    run(features, is_signed, labels, indices, [&](const edgetrain::Examples& examples) {
      return engine_.train(examples, {0, 0, 0, 0.0, {0.0, 1.0, 1.0}, 0, 0}, profile);
    });
    const std::vector<std::uint64_t> times = profile.nanoseconds();
    return nb::bytes(times.data(), times.size() * sizeof(std::uint64_t));
  }

  nb::bytes read(std::size_t offset, std::size_t bytes) const {
    check(offset, bytes);
    return nb::bytes(engine_.arena().at<char>(offset), bytes);
  }

  void write(std::size_t offset, nb::handle data) {
    const Buffer buffer(data);
    check(offset, buffer.bytes());
    std::memcpy(engine_.arena().at<char>(offset), buffer.as<char>(), buffer.bytes());
  }

  std::string isa() const { return engine_.isa(); }

 private:
  template <class Step>
  std::pair<double, std::size_t> run(nb::handle features, bool is_signed, nb::handle labels,
                                     nb::handle indices, const Step& step) {
    const Buffer feature_buffer(features);
    const Buffer label_buffer(labels);
    const Buffer index_buffer(indices);
    const edgetrain::Examples examples = {
        feature_buffer.as<std::uint8_t>(), static_cast<std::uint8_t>(is_signed ? 0x80 : 0),
        label_buffer.as<std::uint8_t>(), index_buffer.as<std::uint32_t>(),
        index_buffer.bytes() / sizeof(std::uint32_t)};
    check_examples(examples, feature_buffer.bytes(), label_buffer.bytes());
    const nb::gil_scoped_release unlocked;
    const std::lock_guard<std::mutex> lock(mutex_);
    const edgetrain::LossResult result = step(examples);
    return {result.loss_sum, result.correct};
  }

  void check_examples(const edgetrain::Examples& examples, std::size_t feature_bytes,
                      std::size_t label_count) const {
    const edgetrain::Program& program = engine_.program();
    if (examples.count == 0 || examples.count > program.examples) {
      throw std::invalid_argument("a micro-batch of " + std::to_string(examples.count) +
                                  " does not fit the plan's " + std::to_string(program.examples));
    }
    const std::size_t rows = std::min(feature_bytes / program.input_features, label_count);
    for (std::size_t i = 0; i < examples.count; ++i) {
      if (examples.indices[i] >= rows) {
        throw std::invalid_argument("example " + std::to_string(examples.indices[i]) +
                                    " does not exist: there are " + std::to_string(rows));
      }
      if (examples.labels[examples.indices[i]] >= program.loss.classes) {
        throw std::invalid_argument(
            "label " + std::to_string(examples.labels[examples.indices[i]]) + " of example " +
            std::to_string(examples.indices[i]) + " is out of range: the model has " +
            std::to_string(program.loss.classes) + " classes");
      }
    }
  }

  void check(std::size_t offset, std::size_t bytes) const {
    const std::size_t size = engine_.arena().bytes();
    if (offset > size || bytes > size - offset) {
      throw std::invalid_argument("that range lies outside the arena");
    }
  }

  edgetrain::Engine engine_;
  std::mutex mutex_;
};

std::pair<nb::bytes, std::uint32_t> luq4_encode(nb::handle before, nb::handle after,
                                                std::uint64_t key) {
  const Buffer from(before);
  const Buffer to(after);
  if (from.bytes() != to.bytes()) {
    throw std::invalid_argument("before and after differ in length");
  }
  std::vector<std::uint8_t> codes((from.bytes() + 1) / 2);
  const std::uint32_t maximum =
      edgetrain::encode_difference(from.as<std::int8_t>(), to.as<std::int8_t>(), from.bytes(),
                                   edgetrain::split(key), codes.data());
  return {nb::bytes(codes.data(), codes.size()), maximum};
}

// The order of an epoch: Fisher and Yates, drawn from the counter generator; 32-bit indices.
nb::bytes shuffled(std::uint32_t count, std::uint64_t seed, std::uint64_t epoch) {
  const edgetrain::Key key = edgetrain::derive(seed, epoch, 0, edgetrain::Purpose::shuffle);
  // Drawn where Python keeps it: a second copy of a large one would be a device's peak.
  nb::bytes result = nb::steal<nb::bytes>(
      PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(count) * sizeof(std::uint32_t)));
  if (!result.is_valid()) {
    throw nb::python_error();
  }
  auto* order = reinterpret_cast<std::uint32_t*>(PyBytes_AsString(result.ptr()));
  std::iota(order, order + count, 0U);
  for (std::uint32_t i = count; i-- > 1;) {
    const std::uint64_t draw = edgetrain::random_bits(key, i);
    std::swap(order[i], order[static_cast<std::size_t>(draw * (i + 1ULL) >> 32)]);
  }
  return result;
}

nb::bytes random_words(std::uint64_t seed, std::uint64_t step, std::uint64_t layer,
                       std::uint64_t purpose, std::uint32_t count) {
  const edgetrain::Key key =
      edgetrain::derive(seed, step, layer, static_cast<edgetrain::Purpose>(purpose));
  std::vector<std::uint32_t> words(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    words[i] = edgetrain::random_bits(key, i);
  }
  return nb::bytes(words.data(), words.size() * sizeof(std::uint32_t));
}

std::pair<double, double> limits(const std::string& isa, std::size_t threads) {
  const nb::gil_scoped_release unlocked;
  const edgetrain::Limits found = edgetrain::measure_limits(isa, threads);
  return {found.dot, found.xnor};
}

}  // namespace

NB_MODULE(_native, module) {
  module.doc() = "The native training engine.";
  nb::class_<BoundEngine>(module, "Engine")
      .def(nb::init<nb::bytes, std::uint64_t, std::string>(), "program"_a, "seed"_a, "isa"_a)
      .def("train", &BoundEngine::train, "features"_a, "is_signed"_a, "labels"_a, "indices"_a,
           "step"_a, "latent_step"_a, "scale_step"_a, "statistics_momentum"_a,
           "shift_learning_rate"_a, "correction1"_a, "correction2"_a, "held_step"_a, "threshold"_a)
      .def("evaluate", &BoundEngine::evaluate, "features"_a, "is_signed"_a, "labels"_a, "indices"_a)
      .def("profile", &BoundEngine::profile, "features"_a, "is_signed"_a, "labels"_a, "indices"_a)
      .def("read", &BoundEngine::read, "offset"_a, "bytes"_a)
      .def("write", &BoundEngine::write, "offset"_a, "data"_a)
      .def_prop_ro("isa", &BoundEngine::isa);
  module.def("limits", &limits, "isa"_a, "threads"_a);
  module.def("luq4_encode", &luq4_encode, "before"_a, "after"_a, "key"_a);
  module.def("shuffled", &shuffled, "count"_a, "seed"_a, "epoch"_a);
  module.def("random_words", &random_words, "seed"_a, "step"_a, "layer"_a, "purpose"_a, "count"_a);
  module.def("supported_isas", &edgetrain::supported_isas);
}
