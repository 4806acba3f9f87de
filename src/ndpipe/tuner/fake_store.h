// A PipeStore for tests: speaks to a StoreLinkHandler directly, and its features are a function of
// the photo's id.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/extract/views.h"
#include "ndpipe/model/delta.h"
#include "ndpipe/model/tail.h"
#include "ndpipe/rpc/store_link.h"

namespace ndpipe::tuner {

constexpr int kFakeFeatureSize = 8;
constexpr int kFakeClasses = 4;
constexpr size_t kMaxTailBytes = size_t{64} << 20;  // of real models, too
// The tiny backbone's cut before its pooling, where each feature fills a map.
constexpr char kFakeMapsCut[] = "maps";
constexpr int kFakeMapPixels = 64;

struct FakePhoto {
  photo::PhotoId id;
  std::string label;
  photo::Part part = photo::Part::kTrain;
};

// Photo i of a world: its label is i % kFakeClasses, one in eight is a test photo.
inline FakePhoto MakeFakePhoto(int i) {
  FakePhoto photo;
  photo.id = Sha256::Of("photo " + std::to_string(i));
  photo.label = "class " + std::to_string(i % kFakeClasses);
  photo.part = i % 8 == 0 ? photo::Part::kTest : photo::TrainOrHeldOut(photo.id);
  return photo;
}

// Separable: the label's own dimension stands out, the rest is noise from the id.
inline std::vector<Half> FakeFeatures(const FakePhoto& photo) {
  std::vector<Half> features(kFakeFeatureSize);
  for (int f = 0; f < kFakeFeatureSize; ++f) {
    features[f] = static_cast<Half>(static_cast<float>(photo.id.bytes[f + 8]) / 256.0F);
  }
  const int label = photo.label.back() - '0';
  features[label] = static_cast<Half>(static_cast<float>(features[label]) + 2.0F);
  return features;
}

// Of a view: a bit more noise, of the photo's and the view's.
inline std::vector<Half> FakeViewFeatures(const FakePhoto& photo, int view) {
  auto features = FakeFeatures(photo);
  for (int f = 0; f < kFakeFeatureSize && view > 0; ++f) {
    const auto noise = static_cast<float>(photo.id.bytes[(f + view) % 32]) / 1024.0F;
    features[f] = static_cast<Half>(static_cast<float>(features[f]) + noise);
  }
  return features;
}

// What lies at the cut before the pooling, whose means are FakeViewFeatures.
inline std::vector<Half> FakeMaps(const FakePhoto& photo, int view = 0) {
  std::vector<Half> maps;
  for (const Half feature : FakeViewFeatures(photo, view)) {
    maps.insert(maps.end(), kFakeMapPixels, feature);
  }
  return maps;
}

class FakeStore {
 public:
  FakeStore(std::string id, const std::vector<int>& photos) : id_(std::move(id)) {
    for (const int i : photos) Import(MakeFakePhoto(i));
  }
  ~FakeStore() { Disconnect(); }

  void Import(const FakePhoto& photo) {
    std::lock_guard lock(mutex_);
    const auto number = static_cast<int64_t>(photos_.size()) + 1;
    photos_[number] = photo;
    photo::Change added;
    added.sequence = static_cast<int64_t>(changes_.size()) + 1;
    added.kind = photo::ChangeKind::kAdded;
    added.number = number;
    added.id = photo.id;
    added.part = photo.part;
    added.path = "p" + std::to_string(number) + ".jpg";
    added.size_bytes = 1000;
    changes_.push_back(added);
    photo::Change label;
    label.sequence = added.sequence + 1;
    label.kind = photo::ChangeKind::kSourceLabel;
    label.number = number;
    label.id = photo.id;
    label.label = photo.label;
    changes_.push_back(label);
  }

  rpc::Hello MakeHello() {
    rpc::Hello hello;
    hello.store_id = id_;
    hello.store_name = "host:" + id_;
    hello.device = "cpu";
    hello.view_rule = view_rule;
    std::lock_guard lock(mutex_);
    hello.last_change = static_cast<int64_t>(changes_.size());
    return hello;
  }

  Status Connect(rpc::StoreLinkHandler& handler) {
    Disconnect();
    auto life = std::make_shared<Life>();
    NDP_ASSIGN(life->welcome, handler.OnHello(MakeHello(), life));
    {
      std::lock_guard lock(mutex_);
      handler_ = &handler;
      life_ = life;
    }
    control_ = std::jthread([this, life](std::stop_token stop) {
      for (auto held = life; held != nullptr;) {
        Control(*held, stop);
        held = held->closed && !stop.stop_requested() ? Reconnect(held) : nullptr;
      }
    });
    return {};
  }

  // As a killed process: the connection is gone, whatever was in progress.
  void Disconnect() {
    const auto life = TakeLife();
    if (life == nullptr) return;
    HangUp(*life);
    control_ = {};
  }

  const std::string& id() const { return id_; }
  bool connected() {
    std::lock_guard lock(mutex_);
    return life_ != nullptr && !life_->dead;
  }

  // Faults and observations; set before Connect.
  std::atomic<int> blocks_until_death{-1};  // acknowledged blocks after which the process dies
  std::atomic<int> wrong_space_blocks{0};   // so many blocks come from another feature space
  std::atomic<bool> send_twice{false};      // every block is delivered twice
  std::atomic<int64_t> view_rule{extract::kViewRule};  // 0: an older program's
  std::atomic<bool> knows_views{true};  // false: each block has one view, whatever is asked for
  std::atomic<int64_t> views_sent{0};
  std::atomic<bool> paused{false};           // no block is delivered meanwhile
  std::atomic<double> photos_per_second{0};  // at most; 0: as fast as it can
  std::atomic<int64_t> feature_bytes{0};  // that its heartbeats tell of; twice as much of sidecars
  std::atomic<int> blocks_sent{0};
  std::atomic<int64_t> photos_sent{0};
  std::atomic<int64_t> last_epoch{0};
  std::atomic<int64_t> last_job{0};
  std::optional<Error> profile_error;      // what a profile ends with
  double profile_seconds_a_photo = 0.001;  // at the first cut
  std::atomic<int> cuts_measured{0};
  std::atomic<int> networks_measured{0};
  std::set<photo::PhotoId> broken;  // photos that fail
  std::set<photo::PhotoId> cached;  // photos whose features count as cached
  std::vector<int64_t> runs_seen;   // of the blocks in the order that they came
  std::mutex seen_mutex;

 private:
  struct Life : rpc::StoreChannel {
    rpc::Welcome welcome;
    std::mutex mutex;
    std::condition_variable_any changed;
    std::deque<rpc::TunerMessage> messages;
    std::atomic<bool> dead = false;
    std::atomic<bool> closed = false;  // by the Tuner
    void Send(rpc::TunerMessage message) override {
      std::lock_guard lock(mutex);
      messages.push_back(std::move(message));
      changed.notify_all();
    }
    void Close(Error) override { dead = closed = true; }
  };

  std::shared_ptr<Life> TakeLife() {
    std::lock_guard lock(mutex_);
    return std::exchange(life_, nullptr);
  }

  // As daemons do when the Tuner has closed their connection. Null: disconnected meanwhile.
  std::shared_ptr<Life> Reconnect(const std::shared_ptr<Life>& closed) {
    HangUp(*closed);
    auto life = std::make_shared<Life>();
    auto welcome = handler_->OnHello(MakeHello(), life);
    if (!welcome) return nullptr;
    life->welcome = *welcome;
    {
      std::lock_guard lock(mutex_);
      if (life_ == closed) return life_ = life;
    }
    HangUp(*life);
    return nullptr;
  }

  void HangUp(Life& life) {
    life.dead = true;
    handler_->OnDisconnect(id_, life.welcome.session);
  }

  void Control(Life& life, const std::stop_token& stop) {
    std::jthread work;
    while (!stop.stop_requested() && !life.dead) {
      std::optional<rpc::TunerMessage> message;
      {
        std::unique_lock lock(life.mutex);
        life.changed.wait_for(lock, stop, std::chrono::milliseconds(5),
                              [&] { return !life.messages.empty(); });
        if (!life.messages.empty()) {
          message = std::move(life.messages.front());
          life.messages.pop_front();
        }
      }
      if (!message) {
        const int64_t bytes = feature_bytes;
        rpc::StoreHeartbeat heartbeat{MakeHello().last_change, bytes, 2 * bytes};
        if (!life.dead) handler_->OnMessage(id_, life.welcome.session, heartbeat);
      } else if (const auto* pull = std::get_if<rpc::PullChanges>(&*message)) {
        SendChanges(pull->after);
      } else if (const auto* assignment = std::get_if<rpc::Assignment>(&*message)) {
        work = {};
        work = std::jthread([this, &life, assignment = *assignment](std::stop_token own) {
          Work(life, assignment, own);
        });
      } else if (std::holds_alternative<rpc::CancelAssignment>(*message)) {
        work = {};
      }
    }
  }

  void SendChanges(int64_t after) {
    std::vector<photo::Change> rest;
    {
      std::lock_guard lock(mutex_);
      rest.assign(changes_.begin() + after, changes_.end());
    }
    (void)handler_->OnChanges(id_, rest);
  }

  void Report(Life& life, const rpc::Assignment& assignment, rpc::AssignmentState state,
              Error error = {}) {
    rpc::AssignmentReport report;
    report.job = assignment.job;
    report.epoch = assignment.epoch;
    report.state = state;
    report.error = std::move(error);
    if (!life.dead) handler_->OnMessage(id_, life.welcome.session, report);
  }

  void Work(Life& life, const rpc::Assignment& assignment, const std::stop_token& stop) {
    const rpc::AssignmentKey key{id_, assignment.job, assignment.epoch};
    last_epoch = assignment.epoch;
    last_job = assignment.job;
    const auto gone = [&] { return stop.stop_requested() || life.dead; };
    std::optional<model::TailWeights> tail;
    if (assignment.kind == rpc::AssignmentKind::kRelabel) {
      auto fetched = FetchTail(assignment.tail);
      if (!fetched) return Report(life, assignment, rpc::AssignmentState::kFailed, fetched.error());
      tail = *std::move(fetched);
    }
    if (assignment.kind == rpc::AssignmentKind::kProfile) return Profile(life, assignment);
    Report(life, assignment, rpc::AssignmentState::kPrepared);
    while (!gone()) {
      auto block = handler_->NextWork(key, gone);
      if (!block && block.error().code == ErrorCode::kAborted) return;
      if (!block) return Report(life, assignment, rpc::AssignmentState::kFailed, block.error());
      if (!*block) return Report(life, assignment, rpc::AssignmentState::kDone);
      while (paused && !gone()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (gone()) return;
      Spend((*block)->photos.size(), gone);
      {
        std::lock_guard lock(seen_mutex);
        runs_seen.push_back((*block)->run);
      }
      Status sent;
      for (int copy = 0; copy < (send_twice ? 2 : 1) && sent; ++copy) {
        sent = tail ? handler_->OnLabels(key, Label(assignment, **block, *tail))
                    : handler_->OnFeatures(key, Extract(assignment, **block));
      }
      if (!sent && sent.error().code == ErrorCode::kAborted) return;
      if (!sent) return Report(life, assignment, rpc::AssignmentState::kFailed, sent.error());
      ++blocks_sent;
      photos_sent += static_cast<int64_t>((*block)->photos.size());
      if (blocks_until_death > 0 && --blocks_until_death == 0) return HangUp(life);
    }
  }

  // As PipeStores do: by deltas from the tails that it has.
  Result<model::TailWeights> FetchTail(const Hash256& tail) {
    if (!tails_.contains(tail)) {
      std::vector<Hash256> held;
      for (const auto& [hash, weights] : tails_) held.push_back(hash);
      NDP_ASSIGN(const auto route, handler_->RouteToTail(tail, held));
      const bool is_delta = route.base != Hash256{};
      model::Weights weights = is_delta ? tails_.at(route.base) : model::Weights();
      int64_t num_bytes = 0;
      for (const auto& file : route.deltas) {
        NDP_ASSIGN(const auto delta, ReadFile(file, kMaxTailBytes));
        NDP_ASSIGN(weights, model::ApplyDelta(&weights, delta));
        num_bytes += static_cast<int64_t>(delta.size());
      }
      if (model::HashWeights(weights) != tail) return Fail(ErrorCode::kDataLoss, "another tail");
      handler_->OnTailSent(tail, num_bytes, is_delta);
      tails_[tail] = std::move(weights);
    }
    return model::ParseTail(model::SerializeWeights(tails_.at(tail)));
  }

  // The time that the photos take at the store's pace. Pauses are as long as the system makes them:
  // the next one makes up for it.
  void Spend(size_t num_photos, const std::function<bool()>& gone) {
    const double pace = photos_per_second;
    if (pace <= 0) return;
    const auto now = std::chrono::steady_clock::now();
    constexpr auto kLate = std::chrono::milliseconds(50);
    busy_until_ = std::max(busy_until_, now - kLate) +
                  std::chrono::nanoseconds(
                      static_cast<int64_t>(1e9 * static_cast<double>(num_photos) / pace));
    while (!gone() && std::chrono::steady_clock::now() < busy_until_) {
      std::this_thread::sleep_until(
          std::min(busy_until_, std::chrono::steady_clock::now() + std::chrono::milliseconds(5)));
    }
  }

  // Twice as fast at the first cut as at the second, and so on.
  void Profile(Life& life, const rpc::Assignment& assignment) {
    rpc::ProfileFigures figures;
    if (profile_error)
      return Report(life, assignment, rpc::AssignmentState::kFailed, *profile_error);
    double seconds = profile_seconds_a_photo;
    for (const auto& cut : assignment.profile.cuts) {
      figures.cuts.push_back({cut.cut, kFakeFeatureSize, seconds, 0});
      seconds *= 2;
      ++cuts_measured;
    }
    figures.num_photos = assignment.profile.num_photos;
    figures.sidecar_share = 1;
    if (assignment.profile.send_ms > 0) {
      rpc::FeatureBlock block;
      block.feature_space = assignment.feature_space;
      block.feature_size = 2;
      block.photos = {1};
      block.features.resize(2);
      const auto sent = handler_->OnFeatures({id_, assignment.job, assignment.epoch}, block);
      if (!sent) return Report(life, assignment, rpc::AssignmentState::kFailed, sent.error());
      figures.sent_bytes = 1'000'000;
      figures.send_seconds = 0.01;
      figures.send_cpu_seconds = 0.001;
      ++networks_measured;
    }
    rpc::AssignmentReport report;
    report.job = assignment.job;
    report.epoch = assignment.epoch;
    report.state = rpc::AssignmentState::kDone;
    report.profile = figures;
    if (!life.dead) handler_->OnMessage(id_, life.welcome.session, report);
  }

  FakePhoto PhotoOf(int64_t number) {
    std::lock_guard lock(mutex_);
    return photos_.at(number);
  }

  rpc::FeatureBlock Extract(const rpc::Assignment& assignment, const rpc::WorkBlock& work) {
    rpc::FeatureBlock block;
    block.run = work.run;
    block.block = work.block;
    block.feature_space = assignment.feature_space;
    if (wrong_space_blocks > 0) {
      --wrong_space_blocks;
      block.feature_space = Sha256::Of("another body");
    }
    block.views = knows_views ? work.views : 1;
    if (block.views > 1) block.view_rule = view_rule;
    const bool maps = assignment.cut == kFakeMapsCut;
    block.feature_size = maps ? kFakeFeatureSize * kFakeMapPixels : kFakeFeatureSize;
    for (const int64_t number : work.photos) {
      const auto photo = PhotoOf(number);
      if (broken.contains(photo.id)) {
        block.failures.push_back({number, "the file is broken"});
        continue;
      }
      block.photos.push_back(number);
      for (int view = 0; view < block.views; ++view) {
        const auto features = maps ? FakeMaps(photo, view) : FakeViewFeatures(photo, view);
        block.features.insert(block.features.end(), features.begin(), features.end());
        ++views_sent;
      }
      block.photo_bytes += 1000;
      block.from_features += cached.contains(photo.id) ? 1 : 0;
    }
    return block;
  }

  rpc::LabelBlock Label(const rpc::Assignment& assignment, const rpc::WorkBlock& work,
                        const model::TailWeights& tail) {
    rpc::LabelBlock block;
    block.block = work.block;
    block.version = assignment.version;
    for (const int64_t number : work.photos) {
      const auto photo = PhotoOf(number);
      if (broken.contains(photo.id)) {
        block.failures.push_back({number, "the file is broken"});
        continue;
      }
      const auto features = FakeFeatures(photo);
      int32_t best = 0;
      float best_logit = -1e30F;
      for (int64_t c = 0; c < tail.num_classes; ++c) {
        float logit = tail.bias[static_cast<size_t>(c)];
        for (int f = 0; f < kFakeFeatureSize; ++f) {
          logit += static_cast<float>(features[f]) *
                   tail.weight[static_cast<size_t>(c * kFakeFeatureSize + f)];
        }
        if (logit > best_logit) best = static_cast<int32_t>(c);
        best_logit = std::max(best_logit, logit);
      }
      block.photos.push_back(number);
      block.from_features += cached.contains(photo.id) ? 1 : 0;
      block.classes.push_back(best);
      block.confidences.push_back(0.5F);
    }
    return block;
  }

  const std::string id_;
  std::chrono::steady_clock::time_point busy_until_;  // the working thread's
  std::mutex mutex_;
  rpc::StoreLinkHandler* handler_ = nullptr;  // set by Connect
  std::map<int64_t, FakePhoto> photos_;       // guarded by mutex_
  std::vector<photo::Change> changes_;        // guarded by mutex_
  std::shared_ptr<Life> life_;                // guarded by mutex_
  std::map<Hash256, model::Weights> tails_;   // the working thread's, one at a time
  std::jthread control_;
};

}  // namespace ndpipe::tuner
