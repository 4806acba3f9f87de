// Rates of the label database, one JSON line each: label_bench [PHOTOS [CLASSES [FOLDER]]].
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "ndpipe/base/clock.h"
#include "ndpipe/base/worker.h"
#include "ndpipe/label/label_database.h"

namespace ndpipe::label {
namespace {

constexpr int64_t kChangesPerBatch = 4096;

struct Sizes {
  int64_t photos = 1'000'000;
  int64_t classes = 100;
};

template <typename T>
T Must(Result<T> result) {
  if (!result) {
    fmt::print(stderr, "label_bench: {}\n", result.error().message);
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

void Print(const std::string& name, double seconds, int64_t items) {
  fmt::print("{{\"bench\":\"label/{}\",\"items\":{},\"seconds\":{:.4f},\"per_second\":{:.0f}}}\n",
             name, items, seconds, static_cast<double>(items) / seconds);
  std::fflush(stdout);
}

// Every photo with a source label, as an import of labelled photos makes them.
void AddPhotos(LabelDatabase& db, const Sizes& sizes) {
  const Stopwatch watch;
  int64_t sequence = 0;
  std::vector<photo::Change> changes;
  for (int64_t number = 1; number <= sizes.photos; ++number) {
    photo::Change change;
    change.sequence = ++sequence;
    change.number = number;
    change.id = Sha256::Of(std::to_string(number));
    change.path = "photos/" + change.id.Hex().substr(0, 2) + "/" + change.id.Hex() + ".jpg";
    change.origin = "import/" + std::to_string(number) + ".jpg";
    changes.push_back(change);
    change.sequence = ++sequence;
    change.kind = photo::ChangeKind::kSourceLabel;
    change.label = "class " + std::to_string(number % sizes.classes);
    changes.push_back(change);
    if (static_cast<int64_t>(changes.size()) >= kChangesPerBatch || number == sizes.photos) {
      Must(db.ApplyChanges("store", changes));
      changes.clear();
    }
  }
  Print("apply_changes", watch.Seconds(), sequence);
}

int64_t MakeVersion(LabelDatabase& db, const Sizes& sizes) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < sizes.classes; ++i) names.push_back("class " + std::to_string(i));
  ModelVersion version;
  version.classes = Must(db.LabelIds(names));
  return Must(db.CreateVersion(version));
}

void Relabel(LabelDatabase& db, int64_t version, const Sizes& sizes, int64_t batch) {
  const auto classes = Must(db.GetVersion(version)).classes;
  double seconds = 0;
  for (int64_t number = 1; number <= sizes.photos;) {
    std::vector<LabelOutcome> outcomes;
    for (; number <= sizes.photos && static_cast<int64_t>(outcomes.size()) < batch; ++number) {
      const uint64_t mixed = static_cast<uint64_t>(number) * 0x9e3779b97f4a7c15u;
      outcomes.push_back({.number = number,
                          .label = classes[(mixed >> 32) % classes.size()],
                          .confidence = static_cast<double>(mixed >> 40) / (1 << 24),
                          .reason = {}});
    }
    const Stopwatch watch;
    Must(db.WriteOutcomes(version, "store", outcomes));
    seconds += watch.Seconds();
  }
  Print(fmt::format("write_outcomes_{}", batch), seconds, sizes.photos);
  Must(db.MarkDistributed(version));
  const Stopwatch watch;
  Must(db.Switch(version, {"store"}));
  Print("switch", watch.Seconds(), sizes.photos);
  const Stopwatch drop_watch;
  Must(db.DropOldOutcomes({}));
  Print("drop_old_outcomes", drop_watch.Seconds(), sizes.photos);
}

// As several PipeStores at once send them, in blocks of 1,024.
void RelabelTogether(LabelDatabase& db, int64_t version, const Sizes& sizes, int64_t writers) {
  const auto classes = Must(db.GetVersion(version)).classes;
  const int64_t share = sizes.photos / writers;
  const Stopwatch watch;
  {
    std::vector<Worker> workers;
    for (int64_t writer = 0; writer < writers; ++writer) {
      workers.emplace_back("writer", [&, writer](std::stop_token) {
        for (int64_t i = 0; i < share; i += 1024) {
          std::vector<LabelOutcome> outcomes;
          for (int64_t k = i; k < std::min(i + 1024, share); ++k) {
            const int64_t number = writer * share + k + 1;
            outcomes.push_back({.number = number,
                                .label = classes[static_cast<size_t>(number) % classes.size()],
                                .confidence = 0.5,
                                .reason = {}});
          }
          Must(db.WriteOutcomes(version, "store", outcomes));
        }
      });
    }
  }
  Print(fmt::format("write_outcomes_1024_x{}", writers), watch.Seconds(), share * writers);
}

void Read(LabelDatabase& db, const Sizes& sizes) {
  const Stopwatch training;
  const auto photos = Must(db.TrainingPhotos());
  Print("training_photos", training.Seconds(), static_cast<int64_t>(photos.size()));
  const Stopwatch counting;
  Must(db.Counts());
  Print("counts", counting.Seconds(), 1);
  for (const int64_t limit : {int64_t{100}, int64_t{100'000}}) {
    const Stopwatch searching;
    const auto found = Must(db.Search("class 1", std::nullopt, limit));
    Print(fmt::format("search_{}", limit), searching.Seconds(), static_cast<int64_t>(found.size()));
  }
  const int64_t version = MakeVersion(db, sizes);
  const Stopwatch sweeping;
  int64_t after = 0;
  int64_t swept = 0;
  while (true) {
    const auto page = Must(db.WithoutOutcome(version, after, kChangesPerBatch));
    if (page.empty()) break;
    after = page.back().photo;
    swept += static_cast<int64_t>(page.size());
  }
  Print("without_outcome", sweeping.Seconds(), swept);
}

void Run(const Sizes& sizes, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  {
    auto db = Must(LabelDatabase::Open(folder / "labels.db"));
    AddPhotos(*db, sizes);
    for (const int64_t batch : {1024, 2048, 4096})
      Relabel(*db, MakeVersion(*db, sizes), sizes, batch);
    RelabelTogether(*db, MakeVersion(*db, sizes), sizes, 8);
    Read(*db, sizes);
  }
  fmt::print("{{\"bench\":\"label/file_bytes\",\"bytes\":{}}}\n",
             std::filesystem::file_size(folder / "labels.db"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ndpipe::label

int main(int argc, char** argv) {
  ndpipe::label::Sizes sizes;
  if (argc > 1) sizes.photos = std::max(1LL, std::atoll(argv[1]));
  if (argc > 2) sizes.classes = std::max(2LL, std::atoll(argv[2]));
  const std::filesystem::path parent =
      argc > 3 ? std::filesystem::path(argv[3]) : std::filesystem::temp_directory_path();
  ndpipe::label::Run(sizes, parent / ("label_bench." + std::to_string(::getpid())));
}
