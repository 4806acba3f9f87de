// The PipeStore's end of the control stream.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>

#include "ndpipe/rpc/store_link.h"

namespace ndpipe::rpc {

// Holds at most one control stream at a time, on a connection of its own. Thread-safe.
class ControlClient {
 public:
  ControlClient(Address tuner, Security security);
  ~ControlClient();

  Error Run(const Hello& hello, const ControlCallbacks& callbacks,
            const std::function<StoreHeartbeat()>& heartbeat, std::stop_token stop);
  void Report(const AssignmentReport& report);

 private:
  class Life;  // one stream, from Hello to its end

  const Address tuner_;
  const Security security_;
  std::mutex mutex_;
  Life* life_ = nullptr;  // guarded by mutex_; the running one
};

}  // namespace ndpipe::rpc
