#include "server_placement.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "measure.h"
#include "ndpipe/base/clock.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/machine.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/image/sidecar.h"
#include "ndpipe/train/tail_trainer.h"

namespace ndpipe::bench {
namespace {

constexpr size_t kMaxItemBytes = size_t{1} << 26;
constexpr int64_t kBlockPhotos = 64;
// Of one sender's photos that wait for the pipeline: more than it asks for at a time, so that a
// photo that it waits for is never kept back.
constexpr size_t kMaxWaiting = 128;
constexpr int64_t kPhotosOfSender = 1'000'000'000;  // number = sender × this + place, from 1
constexpr size_t kPieceBytes = size_t{1} << 18;

Status WriteAll(int fd, const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd, at, size);
    if (written < 0) return FailErrno("cannot send", errno);
    at += written;
    size -= static_cast<size_t>(written);
  }
  return {};
}

Status ReadAll(int fd, void* data, size_t size) {
  char* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = ::read(fd, at, size);
    if (got < 0) return FailErrno("cannot receive", errno);
    if (got == 0) return Fail(ErrorCode::kDataLoss, "the other side hung up early");
    at += got;
    size -= static_cast<size_t>(got);
  }
  return {};
}

sockaddr_in AddressFor(const std::string& host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  ::inet_pton(AF_INET, host.c_str(), &address.sin_addr);
  return address;
}

// The photos of all senders, as they come; Read waits for the one that it is asked for.
class ArrivingPhotos final : public photo::PhotoSource {
 public:
  explicit ArrivingPhotos(size_t num_senders) : waiting_(num_senders) {}

  // Blocks while the sender has enough that waits. False: it is all over.
  bool Put(size_t sender, int64_t number, std::vector<uint8_t> bytes) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_[sender].size() < kMaxWaiting || error_; });
    if (error_) return false;
    waiting_[sender].emplace(number, std::move(bytes));
    changed_.notify_all();
    return true;
  }
  void Fail(Error error) {
    std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    changed_.notify_all();
  }

  Result<std::vector<uint8_t>> Read(int64_t number) override {
    auto& photos = waiting_[static_cast<size_t>((number - 1) / kPhotosOfSender)];
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return photos.contains(number) || error_; });
    if (error_) return std::unexpected(*error_);
    auto bytes = std::move(photos.at(number));
    photos.erase(number);
    changed_.notify_all();
    return bytes;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unordered_map<int64_t, std::vector<uint8_t>>> waiting_;  // guarded by mutex_
  std::optional<Error> error_;                                              // guarded by mutex_
};

// One sender's connection or pack, read to its end.
Status Receive(int fd, size_t sender, int64_t num_photos, ArrivingPhotos& photos) {
  for (int64_t i = 1; i <= num_photos; ++i) {
    uint32_t size = 0;
    NDP_RETURN_IF_ERROR(ReadAll(fd, &size, sizeof size));
    if (size > kMaxItemBytes) return Fail(ErrorCode::kDataLoss, "a pack has an absurd photo");
    std::vector<uint8_t> bytes(size);
    NDP_RETURN_IF_ERROR(ReadAll(fd, bytes.data(), size));
    const int64_t number = static_cast<int64_t>(sender) * kPhotosOfSender + i;
    if (!photos.Put(sender, number, std::move(bytes))) return {};
  }
  return {};
}

Result<std::vector<FileDescriptor>> OpenPacks(const ServeOptions& options) {
  std::vector<FileDescriptor> packs;
  for (const auto& file : options.local_packs) {
    FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) return FailErrno("cannot open " + file.string(), errno);
    packs.push_back(std::move(fd));
  }
  return packs;
}

// Connections, each of which waits for the word to begin.
Result<std::vector<FileDescriptor>> AcceptSenders(const ServeOptions& options) {
  const FileDescriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int yes = 1;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const sockaddr_in address = AddressFor(options.listen_host, options.port);
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.get(), options.num_senders) != 0) {
    return FailErrno(fmt::format("cannot listen on port {}", options.port), errno);
  }
  fmt::print("{{\"ready\":true}}\n");
  std::vector<FileDescriptor> senders;
  for (int i = 0; i < options.num_senders; ++i) {
    FileDescriptor fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd.valid()) return FailErrno("cannot accept a sender", errno);
    senders.push_back(std::move(fd));
  }
  return senders;
}

// Blocks of all senders in turn, so that every link is busy.
class Blocks {
 public:
  explicit Blocks(std::vector<int64_t> photos_of_sender)
      : left_(std::move(photos_of_sender)), next_(left_.size(), 1) {}

  std::optional<extract::WorkBlock> Next() {
    for (size_t tried = 0; tried < left_.size(); ++tried) {
      const size_t sender = turn_++ % left_.size();
      if (left_[sender] == 0) continue;
      const int64_t count = std::min(left_[sender], kBlockPhotos);
      extract::WorkBlock block{.run = 0, .block = ++num_blocks_, .photos = {}};
      for (int64_t i = 0; i < count; ++i) {
        block.photos.push_back(static_cast<int64_t>(sender) * kPhotosOfSender + next_[sender]++);
      }
      left_[sender] -= count;
      return block;
    }
    return std::nullopt;
  }

 private:
  std::vector<int64_t> left_;
  std::vector<int64_t> next_;
  size_t turn_ = 0;
  int64_t num_blocks_ = 0;
};

Status Train(const ServeOptions& options, train::FeatureSet set) {
  train::TrainerOptions trainer_options;
  NDP_ASSIGN(trainer_options.recipe, train::NamedRecipe("default"));
  if (options.epochs > 0) trainer_options.recipe.epochs = options.epochs;
  trainer_options.num_classes = options.num_classes;
  trainer_options.feature_size = set.feature_size;
  trainer_options.num_photos = set.size();
  trainer_options.num_threads = UsableCores();
  NDP_ASSIGN(const auto trainer, train::TailTrainer::Create(trainer_options));
  const auto trained = trainer->TrainRun(0, std::move(set), {});
  return trained ? Status() : std::unexpected(trained.error());
}

struct Engines {
  std::unique_ptr<engine::BodyEngine> body;
  std::unique_ptr<engine::TailEngine> tail;
};

Result<double> Work(const ServeOptions& options, const model::Backbone& backbone, Engines& engines,
                    ArrivingPhotos& photos, const Stopwatch& watch) {
  extract::ExtractOptions extract_options;
  const auto& spec = backbone.manifest.preprocess;
  const PackForm form = options.form;
  extract_options.decode = [&spec, form](std::span<const uint8_t> bytes,
                                         std::span<uint8_t> input) -> Status {
    if (form == PackForm::kDeflate) {
      return photo::DecodeSidecar(bytes, spec, photo::SidecarCodec::kDeflate, input);
    }
    if (bytes.size() != input.size()) return Fail(ErrorCode::kDataLoss, "pixels of another size");
    std::ranges::copy(bytes, input.begin());
    return {};
  };
  train::FeatureSet set;
  set.feature_size = backbone.feature_size;
  Blocks blocks(options.photos_of_sender);
  const auto next = [&]() -> Result<std::optional<extract::WorkBlock>> { return blocks.Next(); };
  const auto sink = [&](extract::BlockFeatures block) -> Status {
    if (!block.failures.empty()) return Fail(ErrorCode::kDataLoss, block.failures[0].reason);
    if (options.training_photos == 0) {
      std::vector<engine::Top1> top1(block.photos.size());
      return engines.tail->Classify(block.features, top1);
    }
    for (size_t i = 0; i < block.photos.size() && set.size() < options.training_photos; ++i) {
      const auto first = block.features.begin() + static_cast<ptrdiff_t>(i) * backbone.feature_size;
      set.features.insert(set.features.end(), first, first + backbone.feature_size);
      set.classes.push_back(static_cast<int32_t>(block.photos[i] % options.num_classes));
    }
    return {};
  };
  extract::Extractor extractor(backbone, model::Precision::kFp32, *engines.body, photos,
                               extract_options);
  const auto ran = extractor.Run(next, sink, {});
  if (!ran) return std::unexpected(ran.error());
  if (options.training_photos > 0) NDP_RETURN_IF_ERROR(Train(options, std::move(set)));
  return watch.Seconds();
}

}  // namespace

Result<int64_t> WritePack(photo::PhotoStore& store, const photo::PreprocessSpec& spec,
                          PackForm form, const std::filesystem::path& file) {
  NDP_ASSIGN(auto writer, DurableFileWriter::Create(file));
  std::vector<uint8_t> pixels(static_cast<size_t>(spec.num_bytes()));
  int64_t after = 0, total = 0;
  while (true) {
    const auto numbers =
        store.WithCatalog([&](photo::Catalog& catalog) { return catalog.Numbers(after, 1024); });
    if (!numbers) return std::unexpected(numbers.error());
    if (numbers->empty()) break;
    for (const int64_t number : *numbers) {
      NDP_ASSIGN(const auto photo, store.Read(number));
      NDP_RETURN_IF_ERROR(photo::Preprocess(photo, spec, {}, pixels));
      const auto item = form == PackForm::kDeflate
                            ? photo::EncodeSidecar(pixels, spec, photo::SidecarCodec::kDeflate)
                            : pixels;
      const auto size = static_cast<uint32_t>(item.size());
      NDP_RETURN_IF_ERROR(writer.Write({reinterpret_cast<const char*>(&size), sizeof size}));
      NDP_RETURN_IF_ERROR(writer.Write({reinterpret_cast<const char*>(item.data()), item.size()}));
      total += static_cast<int64_t>(sizeof size + item.size());
    }
    after = numbers->back();
  }
  NDP_RETURN_IF_ERROR(writer.Commit());
  return total;
}

Status SendPack(const std::string& host, int port, const std::filesystem::path& file) {
  const FileDescriptor pack(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!pack.valid()) return FailErrno("cannot open " + file.string(), errno);
  const FileDescriptor server(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = AddressFor(host, port);
  if (::connect(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return FailErrno("cannot reach the server", errno);
  }
  char word = 0;
  NDP_RETURN_IF_ERROR(ReadAll(server.get(), &word, 1));  // begin
  std::vector<char> piece(kPieceBytes);
  while (true) {
    const ssize_t got = ::read(pack.get(), piece.data(), piece.size());
    if (got < 0) return FailErrno("cannot read " + file.string(), errno);
    if (got == 0) break;
    NDP_RETURN_IF_ERROR(WriteAll(server.get(), piece.data(), static_cast<size_t>(got)));
  }
  return ReadAll(server.get(), &word, 1);  // all is there
}

Status Serve(const ServeOptions& options) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  NDP_ASSIGN(const auto model, BenchModel::Open(options.model));
  NDP_RETURN_IF_ERROR(MakeFolders(options.cache_folder));
  Engines engines;
  NDP_ASSIGN(engines.body,
             engine::CreateBodyEngine(model.backbone(), {.cache_folder = options.cache_folder}));
  NDP_ASSIGN(const auto own_tail, model::OwnTail(model.backbone()));
  NDP_ASSIGN(engines.tail, engine::CreateTailEngine(own_tail));
  NDP_ASSIGN(const auto sources,
             options.num_senders > 0 ? AcceptSenders(options) : OpenPacks(options));
  ArrivingPhotos photos(sources.size());
  const Stopwatch watch;
  std::vector<std::jthread> receivers;
  for (size_t i = 0; i < sources.size(); ++i) {
    receivers.emplace_back([&, i] {
      const char word = 1;
      const bool is_sender = options.num_senders > 0;
      Status received = is_sender ? WriteAll(sources[i].get(), &word, 1) : Status();
      if (received) {
        received = Receive(sources[i].get(), i, options.photos_of_sender[i], photos);
      }
      if (received && is_sender) received = WriteAll(sources[i].get(), &word, 1);
      if (!received) photos.Fail(received.error());
    });
  }
  const auto seconds = Work(options, model.backbone(), engines, photos, watch);
  if (!seconds) {
    photos.Fail(seconds.error());
    return std::unexpected(seconds.error());
  }
  fmt::print("{{\"seconds\":{:.6f}}}\n", *seconds);
  return {};
}

}  // namespace ndpipe::bench
