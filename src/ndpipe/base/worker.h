// Background work is always a Worker: a named thread that starts with the object and is stopped and
// joined with it.
#pragma once

#include <functional>
#include <stop_token>
#include <string>
#include <thread>

namespace ndpipe {

// Owns one thread. `body` runs once on it and returns soon after its stop token is set.
class Worker {
 public:
  Worker() = default;
  Worker(const std::string& name,
         std::function<void(std::stop_token)> body);  // name: ≤ 15 bytes, for ps and gdb
  Worker(Worker&&) = default;
  Worker& operator=(Worker&&) = default;  // stops and joins what it held

  void RequestStop() { thread_.request_stop(); }
  void StopAndJoin();
  void Join();

 private:
  std::jthread thread_;
};

}  // namespace ndpipe
