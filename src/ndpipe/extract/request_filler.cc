#include "ndpipe/extract/request_filler.h"

#include <algorithm>
#include <utility>

#include "ndpipe/extract/finite.h"

namespace ndpipe::extract {

struct RequestFiller::Request {
  engine::BodyEngine::Request* engine_request = nullptr;
  std::vector<std::optional<PhotoTask>> tasks;  // [batch_size]; those of filled slots
  std::vector<int> free_slots;                  // taken from the back, so slot 0 is at the back
  int num_decoding = 0;                         // slots taken and neither filled nor returned

  bool empty() const {
    return std::ranges::none_of(tasks, [](const auto& task) { return task.has_value(); });
  }
};

RequestFiller::RequestFiller(engine::BodyEngine& body, BlockQueue& queue)
    : body_(body), queue_(queue) {}

RequestFiller::~RequestFiller() { Finish(); }

RequestFiller::Slot RequestFiller::Take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return open_ != nullptr || !acquiring_; });
  if (open_ == nullptr) {
    acquiring_ = true;
    lock.unlock();
    auto* acquired = body_.Acquire();
    lock.lock();
    acquiring_ = false;
    open_ = &requests_.emplace_back();
    open_->engine_request = acquired;
    open_->tasks.resize(body_.batch_size());
    for (int slot = body_.batch_size() - 1; slot >= 0; --slot) open_->free_slots.push_back(slot);
  }
  Request* request = open_;
  const int index = request->free_slots.back();
  request->free_slots.pop_back();
  ++request->num_decoding;
  if (request->free_slots.empty()) open_ = nullptr;
  // One more thread has something to do, and wakes the next in its turn: it takes another slot, or
  // waits for the engine's next request. All at once would find nothing, at the engine's cost.
  changed_.notify_one();
  const auto input = request->engine_request->input();
  const size_t photo_bytes = input.size() / body_.batch_size();
  return {.request = request,
          .index = index,
          .pixels = input.subspan(index * photo_bytes, photo_bytes)};
}

void RequestFiller::Fill(const Slot& slot, const PhotoTask& task) {
  std::unique_lock lock(mutex_);
  slot.request->tasks[slot.index] = task;
  --slot.request->num_decoding;
  Settle(std::move(lock), slot.request);
}

void RequestFiller::Return(const Slot& slot) {
  std::unique_lock lock(mutex_);
  --slot.request->num_decoding;
  // Only an open request gives the slot out again; a closed one goes with a hole.
  if (slot.request == open_) slot.request->free_slots.push_back(slot.index);
  Settle(std::move(lock), slot.request);
}

void RequestFiller::Flush() {
  std::unique_lock lock(mutex_);
  if (open_ != nullptr) Settle(std::move(lock), open_);
}

// A decoder that is still at work on the request settles it when done. While photos wait, an open
// request is filled further; when none does, the next may be seconds away, so what is there goes.
RequestFiller::Fate RequestFiller::FateOf(const Request& request, bool photos_wait) const {
  if (request.num_decoding > 0) return Fate::kWait;
  if (&request == open_ && photos_wait) return Fate::kWait;
  return request.empty() ? Fate::kRelease : Fate::kSubmit;
}

void RequestFiller::Settle(std::unique_lock<std::mutex> lock, Request* request) {
  const Fate fate = FateOf(*request, queue_.HasPhotos());
  if (fate == Fate::kWait) return;
  if (request == open_) open_ = nullptr;
  if (fate == Fate::kRelease) {
    auto* unused = request->engine_request;
    Remove(request);
    lock.unlock();
    body_.Release(unused);
    return;
  }
  if (num_in_flight_++ == 0) busy_since_ = Stopwatch();
  lock.unlock();
  Submit(request);
}

void RequestFiller::Submit(Request* request) {
  int num_slots = 0;  // up to the last filled one
  for (int slot = 0; slot < body_.batch_size(); ++slot) {
    if (request->tasks[slot]) num_slots = slot + 1;
  }
  in_engine_.Add(num_slots);
  body_.Submit(request->engine_request, num_slots,
               [this, request, num_slots](Status status, std::span<const Half> features) {
                 in_engine_.Add(-num_slots);
                 if (status) {
                   HandOut(*request, features);
                 } else {
                   queue_.Stop(std::move(status).error());
                 }
                 std::lock_guard lock(mutex_);
                 if (--num_in_flight_ == 0) busy_seconds_ += busy_since_.Seconds();
                 Remove(request);
                 if (num_in_flight_ == 0) idle_.notify_all();
               });
}

void RequestFiller::HandOut(Request& request, std::span<const Half> features) {
  const size_t feature_size = body_.feature_size();
  int64_t num_photos = 0;
  for (size_t slot = 0; slot < request.tasks.size(); ++slot) {
    if (!request.tasks[slot]) continue;
    const PhotoTask& task = *request.tasks[slot];
    const auto mine = features.subspan(slot * feature_size, feature_size);
    ++num_photos;
    if (!AllFinite(mine)) {
      queue_.CompleteFailed(task, "its features exceed the range of fp16");
      continue;
    }
    std::ranges::copy(mine, task.block->FeaturesOf(task.row()).begin());
    queue_.Complete(task, Outcome::kComputed);
  }
  std::lock_guard lock(mutex_);
  num_photos_ += num_photos;
}

void RequestFiller::Remove(Request* request) {
  std::erase_if(requests_, [&](const Request& other) { return &other == request; });
}

void RequestFiller::Finish() {
  std::unique_lock lock(mutex_);
  Request* rest = std::exchange(open_, nullptr);
  if (rest != nullptr) {
    // Only after a stop: filled photos of an abandoned block.
    auto* unused = rest->engine_request;
    Remove(rest);
    lock.unlock();
    body_.Release(unused);
    lock.lock();
  }
  idle_.wait(lock, [&] { return num_in_flight_ == 0; });
}

}  // namespace ndpipe::extract
