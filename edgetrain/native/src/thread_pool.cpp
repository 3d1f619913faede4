#include "edgetrain/thread_pool.hpp"

namespace edgetrain {

ThreadPool::ThreadPool(std::size_t threads) {
  workers_.reserve(threads - 1);
  for (std::size_t thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { serve(thread); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) {
    worker.join();
  }
}

void ThreadPool::run_erased(std::size_t tasks, const void* context, Function function) {
  if (workers_.empty() || tasks < 2) {
    for (std::size_t task = 0; task < tasks; ++task) {
      function(context, task, 0);
    }
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    context_ = context;
    function_ = function;
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    busy_ = workers_.size();
    ++round_;
  }
  wake_.notify_all();
  drain(0);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
}

void ThreadPool::serve(std::size_t thread) {
  std::size_t seen = 0;
  for (;;) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this, seen] { return stopping_ || round_ != seen; });
      if (stopping_) {
        return;
      }
      seen = round_;
    }
    drain(thread);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--busy_ == 0) {
      done_.notify_one();
    }
  }
}

void ThreadPool::drain(std::size_t thread) {
  for (;;) {
    const std::size_t task = next_.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks_) {
      return;
    }
    function_(context_, task, thread);
  }
}

}  // namespace edgetrain
