// Sends the store's change log up when the Tuner asks for it.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>

#include "ndpipe/base/worker.h"
#include "ndpipe/photo/catalog.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::pipestore {

// Owns a catalog connection of its own, so that a long pull never holds up extraction. Pull() from
// any thread.
class ChangeSender {
 public:
  ChangeSender(photo::Catalog catalog, rpc::StoreLinkClient& tuner);

  void Pull(int64_t after);  // a later request replaces one that has not begun

 private:
  void Work(std::stop_token stop);
  Status Send(int64_t after, std::stop_token stop);

  photo::Catalog catalog_;  // the worker's
  rpc::StoreLinkClient& tuner_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::optional<int64_t> requested_after_;  // guarded by mutex_
  Worker worker_;                           // last: stops before what it uses goes
};

}  // namespace ndpipe::pipestore
