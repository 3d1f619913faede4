// A few threads that sleep between steps and share out numbered tasks.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace edgetrain {

class ThreadPool {
 public:
  // The caller is one of the threads: a pool of one starts none.
  explicit ThreadPool(std::size_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Calls work(task, thread) for every task below `tasks`, and returns when all are done. The work
  // must not throw.
  template <class Work>
  void run(std::size_t tasks, const Work& work) {
    run_erased(tasks, &work, [](const void* context, std::size_t task, std::size_t thread) {
      (*static_cast<const Work*>(context))(task, thread);
    });
  }

 private:
  using Function = void (*)(const void* context, std::size_t task, std::size_t thread);

  void run_erased(std::size_t tasks, const void* context, Function function);
  void serve(std::size_t thread);
  void drain(std::size_t thread);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  const void* context_ = nullptr;
  Function function_ = nullptr;
  std::size_t tasks_ = 0;
  std::atomic<std::size_t> next_{0};
  std::size_t busy_ = 0;
  std::size_t round_ = 0;
  bool stopping_ = false;
};

}  // namespace edgetrain
