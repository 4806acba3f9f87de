#include "ndpipe/base/worker.h"

#include <pthread.h>

#include <utility>

namespace ndpipe {

Worker::Worker(const std::string& name, std::function<void(std::stop_token)> body)
    : thread_([name = name.substr(0, 15), body = std::move(body)](std::stop_token stop) {
        pthread_setname_np(pthread_self(), name.c_str());
        body(std::move(stop));
      }) {}

void Worker::StopAndJoin() {
  thread_.request_stop();
  Join();
}

void Worker::Join() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace ndpipe
